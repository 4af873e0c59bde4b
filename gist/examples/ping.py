#!/usr/bin/env python3
"""A signalling application in another language, on the Unix socket of a GIST node (its framing: module gist::io::ipc).

    ping.py SOCKET NSLPID answer
    ping.py SOCKET NSLPID ask SOURCE DESTINATION [--secure]

`ask` sends "ping" along the path from SOURCE to DESTINATION and waits for the answer of whoever is the next node with this
application on the path; `answer` answers everything that comes. Both print every event, a line each.
"""

import argparse
import json
import os
import socket


class Node:
    """A GIST node, as the application sees it."""

    def __init__(self, path, nslp_id):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.request(request="register", nslp_id=nslp_id)

    def request(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def events(self):
        for line in self.lines:
            print(line, end="", flush=True)
            yield json.loads(line)


def inverted(mri):
    other = {"downstream": "upstream", "upstream": "downstream"}
    return {**mri, "direction": other[mri["direction"]]}


def ask(node, source, destination, secure):
    mri = {"method": "path-coupled", "direction": "downstream", "source": source, "destination": destination, "protocol": 17}
    session = os.urandom(16).hex()
    node.request(request="send", session=session, mri=mri, payload=b"ping".hex(), handle=1, reliable=secure,
                 secure=secure, timeout=5000)
    for event in node.events():
        # What else comes belongs to another session of this application.
        if event["event"] == "received" and event["session"] == session:
            return 0 if bytes.fromhex(event["payload"]) == b"pong" else 1
        if event["event"] == "refused" or event["event"] == "message_status" and event["session"] == session:
            return 1
    return 1


def answer(node):
    seen = set()
    for event in node.events():
        if event["event"] == "received" and bytes.fromhex(event["payload"]) == b"ping":
            secure = event["transport"] == "tls"
            node.request(request="send", session=event["session"], mri=inverted(event["mri"]), payload=b"pong".hex(), handle=2,
                         reliable=secure, secure=secure)
        if event["event"] == "refused" and "registered" not in seen:
            return 1  # nothing will ever come
        seen.add(event["event"])
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket")
    parser.add_argument("nslp_id", type=int)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("answer")
    asking = commands.add_parser("ask")
    asking.add_argument("source")
    asking.add_argument("destination")
    asking.add_argument("--secure", action="store_true")
    arguments = parser.parse_args()
    node = Node(arguments.socket, arguments.nslp_id)
    if arguments.command == "answer":
        return answer(node)
    return ask(node, arguments.source, arguments.destination, arguments.secure)


if __name__ == "__main__":
    raise SystemExit(main())
