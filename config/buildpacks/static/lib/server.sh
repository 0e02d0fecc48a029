# Sourced: sets `server` and `command` to an HTTP server that this stack has.
# `exec` makes the server the process that is told to stop.

find_server() {
  if command -v busybox >/dev/null 2>&1 && busybox --list 2>/dev/null | grep -qx httpd; then
    server='busybox httpd'
    command='exec busybox httpd -f -p "$PORT" -h "$HOME/public"'
  elif command -v python3 >/dev/null 2>&1 && python3 -c 'import http.server' 2>/dev/null; then
    server='python3 -m http.server'
    command='exec python3 -u -m http.server "$PORT" --bind 0.0.0.0 --directory "$HOME/public"'
  else
    return 1
  fi
}
