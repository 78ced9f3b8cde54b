# Makes the six servers one cluster, introduces those whose addresses have changed, and gives a
# master to one that came without data. Every step may be repeated, in a cluster that is well too.
set -eu

name_of() {
  echo "redis-cluster-$1.redis-cluster"
}

# By address: servers introduce each other by nothing else.
address_of() {
  getent hosts "$(name_of "$1")" | cut -d ' ' -f 1
}

# One that is gone may not even refuse.
ask() {
  address=$(address_of "$1")
  shift
  timeout 5 redis-cli -e -h "$address" -p 6379 "$@"
}

says() {
  ask "$1" cluster info | grep -q "^$2"
}

# Sets `present` to the numbers of the servers that answer, `member` to one that knows the cluster.
look_around() {
  present=""
  member=""
  for number in 0 1 2 3 4 5; do
    if [ "$(ask "$number" ping)" = PONG ]; then
      present="$present $number"
      if says "$number" cluster_slots_assigned:16384; then member=$number; fi
    fi
  done
}

# Only to one that knows of none: what has an owner keeps it.
give_slots() {
  if says "$1" cluster_slots_assigned:0; then ask "$1" cluster addslotsrange "$2" "$3"; fi
}

# The addresses of the servers present that one does not reach under their own names.
strangers() {
  for other in $present; do
    echo "$(address_of "$other"):6379@16379,$(name_of "$other")"
  done | {
    nodes=$(ask "$1" cluster nodes | awk '$3 !~ /fail|handshake|noaddr/ && $8 == "connected" { print " " $2 }')
    while read -r other; do
      case "$nodes" in *" $other"*) ;; *) echo "${other%:6379@*}" ;; esac
    done
  }
}

# Each meets those that it does not reach. To introduce all to one is not enough: two that have lost
# each other's addresses do not learn them from others.
all_are_acquainted() {
  acquainted=true
  for number in $present; do
    for address in $(strangers "$number"); do
      acquainted=false
      ask "$number" cluster meet "$address" 6379 >/dev/null
    done
    says "$number" cluster_state:ok && says "$number" cluster_slots_ok:16384 || acquainted=false
  done
  $acquainted
}

is_idle() {
  [ -n "$(ask "$1" cluster nodes | awk '$3 == "myself,master" && NF == 8')" ]
}

# The id of the master that has slots and the fewest replicas.
poorest_master() {
  ask "$member" cluster nodes | awk '
    $3 ~ /fail|noaddr/ { next }
    $3 ~ /slave/ { replicas[$4]++ }
    $3 ~ /master/ && NF > 8 { masters[$1] }
    END {
      for (id in masters) if (poorest == "" || replicas[id] < replicas[poorest]) poorest = id
      print poorest
    }'
}

look_around
until [ -n "$member" ] || [ "$present" = " 0 1 2 3 4 5" ]; do
  echo "waiting for all six servers, here are:$present"
  sleep 2
  look_around
done
if [ -z "$member" ]; then
  give_slots 0 0 5460
  give_slots 1 5461 10922
  give_slots 2 10923 16383
  member=0
fi
until all_are_acquainted; do
  echo "waiting until all of$present reach each other and see every slot served"
  sleep 2
done
for number in $present; do
  if is_idle "$number"; then
    master=$(poorest_master)
    ask "$number" cluster replicate "$master"
    id=$(ask "$number" cluster myid)
    until ask "$member" cluster nodes | grep -q "^$id .*slave $master "; do sleep 1; done
  fi
done
echo "one cluster:$present"
