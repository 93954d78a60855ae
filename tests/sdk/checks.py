"""What the Python scripts share: named checks, the sandbox's tag, and its statistics."""

import json
import os
import sys
import time
import traceback
import urllib.request

CANARY = "xylocanary"  # stands in every prompt: found in a log, it fails the test
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3

_checks = []


def check(function):
    """Registers a function as a check, named as the behaviour it shows."""
    _checks.append(function)
    return function


def run_checks():
    """Runs all checks, prints a line for each, and exits with 1 if any failed."""
    failed = 0
    for function in _checks:
        try:
            function()
            print("ok", function.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", function.__name__, flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)


def prompt(text):
    return f"{CANARY} {text}"


def tag(text, key="tidemill"):
    """The sandbox's tag for a prompt: FNV-1a-64 over the key, a zero byte and the prompt."""
    value = FNV_OFFSET
    for byte in key.encode() + b"\0" + text.encode():
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"sandbox:{value:016x}"


def stats():
    """What the backend counted."""
    with urllib.request.urlopen(os.environ["SANDBOX_URL"] + "/stats", timeout=10) as answer:
        return json.load(answer)


def wait_until(what, holds, seconds):
    """Looks again and again until it holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
