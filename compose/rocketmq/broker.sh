#!/bin/bash
# Starts broker NAME with ID and ROLE, whom others call by HOST. The password is in the file of settings alone, which only this user reads.
set -euo pipefail
umask 077

settings=/tmp/broker.conf
password=$(</run/secrets/brokers.password)
sed -e "s/@NAME@/$NAME/g" -e "s/@ID@/$ID/g" -e "s/@ROLE@/$ROLE/g" -e "s/@HOST@/$HOST/g" -e "s/@PASSWORD@/$password/g" \
    /etc/sluiceway/broker.conf >"$settings"
exec sh mqbroker -c "$settings"
