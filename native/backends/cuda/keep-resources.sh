#!/bin/sh
# Compiler launcher: runs nvcc and keeps ptxas's lines about registers and spills in OBJECT.resources.
object=
previous=
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
messages=$("$@" 2>&1)
status=$?
printf '%s\n' "$messages" | grep -E '^ptxas info|^ +[0-9]+ bytes stack frame' >"$object.resources"
printf '%s\n' "$messages" | grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$' >&2
exit $status
