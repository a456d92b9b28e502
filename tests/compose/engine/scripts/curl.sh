#!/bin/sh
# What a health check asks of curl: does the last word, an address, answer well?
for address; do :; done
exec wget -q -O /dev/null "$address"
