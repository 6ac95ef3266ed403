#!/bin/sh
# Repeat the property tests, with examples drawn anew in every round, until the time is over:
#
#   sh scripts/explore.sh MINUTES PYTEST...
#
# A round that fails is shown whole and the next begins; the exit status is 1 if any failed.
set -eu
minutes=$1
shift
rounds=0
failed=0
trap 'echo "stopped in round $rounds; $failed failed before"; exit 130' INT TERM
end=$(($(date +%s) + 60 * minutes))
while
    rounds=$((rounds + 1))
    seed=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')
    log=$("$@" -q -m hypothesis --hypothesis-profile=explore --hypothesis-seed="$seed" 2>&1) && status=0 || status=$?
    printf 'round %d, --hypothesis-seed=%s: %s\n' "$rounds" "$seed" "$(printf '%s\n' "$log" | tail -n 1)"
    if [ "$status" -ne 0 ]; then
        failed=$((failed + 1))
        printf '%s\n' "$log"
    fi
    [ "$status" -le 1 ] && [ "$(date +%s)" -lt "$end" ]
do :; done
echo "$rounds rounds, $failed failed"
[ "$failed" -eq 0 ]
