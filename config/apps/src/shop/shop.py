# Shows which services it is bound to, and never their credentials.
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

SERVICES = json.loads(os.environ["VCAP_SERVICES"])
LINES = [f"{label}: {one['name']}" for label, all in SERVICES.items() for one in all]
LINES.append("database: " + os.environ["DATABASE_URL"].split("@")[-1])


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write("\n".join(LINES).encode() + b"\n")


HTTPServer(("", int(os.environ["PORT"])), Shop).serve_forever()
