# Works without a port: one line every five seconds, until it is told to stop.

trap 'echo "worker stops after $count rounds"; exit 0' TERM INT

count=0
while :; do
  count=$((count + 1))
  echo "round $count"
  # A shell waits for `sleep` before it looks at signals, but `wait` it leaves at once.
  sleep 5 &
  wait $!
done
