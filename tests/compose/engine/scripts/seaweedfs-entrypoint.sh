#!/bin/sh
# As the official image: the words are weed's.
exec /usr/bin/weed "$@"
