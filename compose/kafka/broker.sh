#!/bin/bash
# Starts broker NODE. The first start formats its folder, and makes the users that kafka.users names: a line each, name and password.
set -euo pipefail

settings=/tmp/server.properties
sed "s/@NODE@/$NODE/g" /etc/sluiceway/broker.properties >"$settings"

users=()
while read -r name password; do
    users+=(--add-scram "SCRAM-SHA-512=[name=$name,password=$password]")
done </run/secrets/kafka.users

/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id "$CLUSTER_ID" --config "$settings" "${users[@]}"
exec /opt/kafka/bin/kafka-server-start.sh "$settings"
