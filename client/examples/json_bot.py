#!/usr/bin/env python3
"""Runs `icephone bot --json` and says in words who called, over which path, and how it was.

    client/examples/json_bot.py --listen 127.0.0.1:5070            an echo without account
    client/examples/json_bot.py -c .../echo.toml --count 1         one of the lab; ends after one call

All arguments go to `icephone bot`; $ICEPHONE names the program if it is not in the path. Every line of --json is one event:
{"seq": 7, "at_ms": 412, "call": 2, "event": "promoted", "path": {...}, ...}. Unknown events are skipped: there will be more.
"""
import json
import os
import subprocess
import sys


def main():
    command = [os.environ.get("ICEPHONE", "icephone"), "bot", "--json", *sys.argv[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bot:
        callers = {}
        try:
            for line in bot.stdout:
                tell(json.loads(line), callers)
        except KeyboardInterrupt:
            pass  # the bot got the same signal and says good-bye
    return bot.returncode


def tell(event, callers):
    call, name = event.get("call"), event["event"]
    if name == "created":
        callers[call] = event["peer"]
        print(f"{event['peer']} calls")
    elif name == "path-changed":
        print(f"{callers.get(call)}: component {event['component']} goes by {event['path']['name']} ({event['cause']})")
    elif name == "dtmf":
        print(f"{callers.get(call)} pressed {event['digit']}")
    elif name == "ended":
        stats, why = event["stats"], event["reason"]["reason"]
        figures = f"{stats['codec']}, {stats['received-packets']} packets, {stats['loss-percent']:.1f} % lost, MOS {stats['mos'] or 0:.1f}"
        print(f"{callers.pop(call, None)}: {event['duration_ms'] / 1000:.1f} s, {why}, {figures}")
    elif name == "registration-failed":
        print(f"not registered: {event['error']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
