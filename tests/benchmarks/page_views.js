// Page views at a constant rate, whether or not the service keeps up: of a hundred requests 80 are
// recommendations for known users, 15 for an inline history, 5 are events.
//   URL, RATE (requests per second), SECONDS, ITEMS (a JSON file of item ids), STORED (whether an
//   earlier run has stored the histories), IN_TIME_MS (slower answers do not count as in time)
import { sleep } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const URL = __ENV.URL;
const USERS = 1000;
const HISTORY = 10;
const items = JSON.parse(open(__ENV.ITEMS));
const item = (number) => items[(number * 7919) % items.length];
const headers = { 'Content-Type': 'application/json' };

const answered = new Counter('answered');
const inTime = new Counter('in_time');
const refused = new Counter('refused');
const failed = new Counter('failed');
const unanswered = new Counter('unanswered');

export const options = {
  scenarios: {
    page_views: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE),
      timeUnit: '1s',
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: 100,
      maxVUs: 600,
    },
  },
  summaryTrendStats: ['p(50)', 'p(95)', 'p(99)', 'max'],
  discardResponseBodies: true,
  thresholds: { 'http_req_duration{kind:recommend}': ['max>=0'] }, // has it reported
};

function post(path, body, kind) {
  return http.post(`${URL}${path}`, JSON.stringify(body), { headers, tags: { kind } });
}

function event(id, user, number) {
  return { event_id: `${__ENV.RUN}-${id}`, user_id: `user-${user}`, item_id: item(number) };
}

// Every user has a history.
export function setup() {
  for (let first = 0; first < USERS && !__ENV.STORED; first += 10) {
    const events = [];
    for (let user = first; user < first + 10; user++) {
      for (let at = 0; at < HISTORY; at++) {
        events.push(event(`setup-${user}-${at}`, user, user * HISTORY + at));
      }
    }
    let answer = post('/v1/events', { events }, 'setup');
    // The store may be slower than its deadline on a busy machine: it says when to come again.
    for (let tries = 0; answer.status === 503 && tries < 20; tries++) {
      sleep(1);
      answer = post('/v1/events', { events }, 'setup');
    }
    if (answer.status !== 200) {
      exec.test.abort(`no events are stored: ${answer.status}`);
    }
  }
}

export default function () {
  const number = exec.scenario.iterationInTest;
  const part = (number * 37) % 100; // 37 and 100 have no common divisor: every part comes in turn
  let answer;
  if (part < 80) {
    answer = post('/v1/recommend', { user_id: `user-${(number * 31) % USERS}` }, 'recommend');
  } else if (part < 95) {
    const history = Array.from({ length: HISTORY }, (_, at) => item(number + at));
    answer = post('/v1/recommend', { history }, 'recommend');
  } else {
    answer = post('/v1/events', event(number, number % USERS, number), 'event');
  }
  const counter = { 200: answered, 429: refused, 0: unanswered }[answer.status] || failed;
  counter.add(1);
  if (answer.status === 200 && answer.timings.duration <= Number(__ENV.IN_TIME_MS)) {
    inTime.add(1);
  }
}
