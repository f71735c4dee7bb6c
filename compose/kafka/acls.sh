#!/bin/bash
# Who may do what: the log's principal has the log's topics, the rules' principal others, and neither has the other's. Runs at each start and
# ends; what is there already stays.
set -euo pipefail

allow() {
    local principal=$1
    shift
    /opt/kafka/bin/kafka-acls.sh --bootstrap-server kafka-1:9094,kafka-2:9094,kafka-3:9094 --command-config /etc/sluiceway/admin.properties \
        --add --allow-principal "User:$principal" --resource-pattern-type prefixed "$@"
}

allow sluiceway-log --topic sluiceway- --operation Create --operation Describe --operation DescribeConfigs --operation Read --operation Write
allow sluiceway-rules --topic devices- --operation Describe --operation DescribeConfigs --operation Read --operation Write
allow sluiceway-rules --topic commands- --operation Describe --operation DescribeConfigs --operation Read
allow sluiceway-rules --group sluiceway. --operation Describe --operation Read
