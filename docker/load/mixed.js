// Mixed traffic at a constant rate, whether or not the service keeps up: of ten requests five are
// recommendations for known users, three for an inline history, two are events; and every ten seconds
// a shop tells how many of an item are left. The items are taken from the service's own answers, so
// any bundle will do.
//   k6 run docker/load/mixed.js      COFINE_URL, LOAD_RATE (requests per second), LOAD_DURATION
import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';

const URL = __ENV.COFINE_URL || 'http://127.0.0.1:8000';
const RATE = Number(__ENV.LOAD_RATE || 20);
const DURATION = __ENV.LOAD_DURATION || '60s';
const USERS = 200;
const HISTORY = 5;

// The shares are exact whatever the rate is: so many iterations in ten seconds.
const share = (name, tenths) => ({
  executor: 'constant-arrival-rate',
  exec: name,
  rate: Math.max(1, Math.round(RATE * tenths)),
  timeUnit: '10s',
  duration: DURATION,
  preAllocatedVUs: 10,
  maxVUs: 200,
});

export const options = {
  scenarios: {
    known_user: share('knownUser', 5),
    inline_history: share('inlineHistory', 3),
    event: share('event', 2),
    edit: { ...share('edit', 0), rate: 1 },
  },
  summaryTrendStats: ['p(50)', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    checks: ['rate>0.999'],
    dropped_iterations: ['count<1'],
    // Naming the scenarios also makes the summary print them one by one.
    'http_req_duration{scenario:known_user}': ['p(99)<500'],
    'http_req_duration{scenario:inline_history}': ['p(99)<500'],
    'http_req_duration{scenario:event}': ['p(99)<500'],
  },
};

function post(path, body) {
  const headers = { 'Content-Type': 'application/json' };
  return http.post(`${URL}${path}`, JSON.stringify(body), { headers });
}

function recommended(response) {
  check(response, {
    'is answered with items': (r) => r.status === 200 && r.json('items').length > 0,
    'is not degraded': (r) => r.status === 200 && r.json('degraded') === null,
  });
}

const pick = (items, number) => items[number % items.length];

// Popular items, and what follows from them; then every user has a history, in batches of events.
export function setup() {
  const items = new Set();
  const shown = [];
  const learn = (body) => {
    const answer = post('/v1/recommend', { ...body, k: 100 });
    if (answer.status !== 200) {
      exec.test.abort(`${URL} does not recommend: ${answer.status} ${answer.body}`);
    }
    const recommendation_id = answer.json('recommendation_id');
    answer.json('items').forEach((item) => {
      items.add(item.item_id);
      shown.push({ item_id: item.item_id, recommendation_id });
    });
  };
  learn({});
  [...items].slice(0, 20).forEach((item) => learn({ history: [item] }));

  const run = Date.now().toString(36);
  const known = [...items];
  for (let first = 0; first < USERS; first += 20) {
    const events = [];
    for (let number = first * HISTORY; number < (first + 20) * HISTORY; number++) {
      events.push(eventBody(run, `setup-${number}`, Math.floor(number / HISTORY), pick(known, 7 * number)));
    }
    const answer = post('/v1/events', { events });
    if (answer.status !== 200) {
      exec.test.abort(`${URL} stores no events: ${answer.status} ${answer.body}`);
    }
  }
  return { run, items: known, shown };
}

function eventBody(run, name, user, item) {
  return { event_id: `${run}-${name}`, user_id: `load-${user % USERS}`, item_id: item };
}

export function knownUser() {
  const number = exec.scenario.iterationInTest;
  recommended(post('/v1/recommend', { user_id: `load-${number % USERS}`, k: 10 }));
}

export function inlineHistory({ items }) {
  const number = exec.scenario.iterationInTest;
  const history = Array.from({ length: 1 + (number % 20) }, (_, place) => pick(items, 3 * number + place));
  recommended(post('/v1/recommend', { history, k: 10 }));
}

export function event({ run, shown }) {
  const number = exec.scenario.iterationInTest;
  const { item_id, recommendation_id } = pick(shown, 11 * number);
  const answer = post('/v1/events', { ...eventBody(run, number, number, item_id), recommendation_id });
  check(answer, { 'is stored': (r) => r.status === 200 && r.json('accepted') === 1 });
}

export function edit({ items }) {
  const item = encodeURIComponent(pick(items, 13 * exec.scenario.iterationInTest));
  const answer = post(`/v1/items/${item}:availability`, { stock: 100 });
  check(answer, { 'is edited': (r) => r.status === 200 });
}
