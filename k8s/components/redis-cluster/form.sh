# Makes the six servers one cluster; does nothing where they are one already.
set -eu
addresses=""
for number in 0 1 2 3 4 5; do
  host="redis-cluster-$number.redis-cluster"
  until [ "$(redis-cli -h "$host" ping)" = PONG ]; do
    echo "waiting for $host"
    sleep 2
  done
  # By address: servers introduce each other by nothing else.
  addresses="$addresses $(getent hosts "$host" | cut -d ' ' -f 1):6379"
done
if redis-cli -h redis-cluster-0.redis-cluster cluster info | grep -q '^cluster_slots_assigned:16384'; then
  echo "they are a cluster already"
  exit 0
fi
# shellcheck disable=SC2086 (one word per address)
redis-cli --cluster create $addresses --cluster-replicas 1 --cluster-yes
