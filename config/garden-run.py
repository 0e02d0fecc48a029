#!/usr/bin/env python3
"""garden-run.py HANDLE PROGRAM [ARG...]: runs a program in a container, with our input and output.
garden-run.py HANDLE --attach ID: joins one that runs."""
import json, os, socket, sys, threading

def dial(method, path, body=""):
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ.get("GARDEN", "/run/terrarium/garden.sock"))
    head = f"{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    link.sendall((head + body).encode())
    answer = link.makefile("rb")
    status = int(answer.readline().split()[1])
    while answer.readline() != b"\r\n":
        pass
    if status >= 300:
        sys.exit(json.loads(answer.readline())["Message"])
    return link, answer                       # what follows is no HTTP any more

def copy(path, to):
    answer = dial("GET", path)[1]
    while piece := answer.read1(65536):
        to.write(piece)
        to.flush()

def feed(control):
    while piece := os.read(0, 4096):
        control.sendall(json.dumps({"source": 0, "data": piece.decode(errors="replace")}).encode())
    control.sendall(b'{"source":0}')          # the end of its input

handle, program, *args = sys.argv[1:]
processes = f"/containers/{handle}/processes"
if program == "--attach":
    control, said = dial("GET", f"{processes}/{args[0]}")
else:
    spec = {"id": os.environ.get("ID", ""), "path": program, "args": args}
    control, said = dial("POST", processes, json.dumps(spec))
begun = json.loads(said.readline())
outputs = f"{processes}/{begun['process_id']}/attaches/{begun['stream_id']}"
copies = [threading.Thread(target=copy, args=(f"{outputs}/stdout", sys.stdout.buffer)),
          threading.Thread(target=copy, args=(f"{outputs}/stderr", sys.stderr.buffer))]
for each in copies:
    each.start()
threading.Thread(target=feed, args=(control,), daemon=True).start()
ended = json.loads(said.readline() or b"{}")  # {"process_id":"...","exit_status":0}
for each in copies:
    each.join()
sys.exit(ended.get("exit_status", ended.get("error", "the daemon has ended; the process has not")))
