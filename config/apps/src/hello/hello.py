"""Says hello over HTTP; needs nothing but Python's own library."""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = os.environ.get("CF_INSTANCE_INDEX", "?")
PORT = int(os.environ.get("PORT", "8080"))


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            self.answer(200, f"Hello from instance {INDEX}\n")
        elif self.path == "/health":
            self.answer(200, "ok\n")
        else:
            self.answer(404, "There is only / and /health here.\n")

    do_HEAD = do_GET

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, form, *args):
        print(f"{self.client_address[0]} {form % args}", flush=True)


def main():
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Hello)

    def stop(*_):
        # shutdown() waits for the loop below, so it cannot be called from within it.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"instance {INDEX} listens on port {PORT}", flush=True)
    server.serve_forever()
    print(f"instance {INDEX} stops", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
