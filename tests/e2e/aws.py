"""The AWS that the tests play (aws_server.py), as tests see it: started, told what to do, and asked what it received."""

import base64
import json
import pathlib
import sys
import types

import kit

KEY_ID = "AKIAFAKEAWSOFTESTS01"
SECRET = "fake+secret/of/the/tests0123456789abcdef"
BEARER = "bedrock-api-key-of-the-tests"
REGION = "us-east-1"
# What ECS gives to a task, so that it gets credentials.
TASK_TOKEN = "token-of-the-task"


class Aws:
    def __init__(self, folder):
        port, control = kit.free_port(), kit.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.control = f"http://127.0.0.1:{control}"
        program = pathlib.Path(__file__).with_name("aws_server.py")
        self.process = kit.Process([sys.executable, program, port, control], folder, "aws")
        try:
            self.process.wait_listening(control)
        except BaseException:
            self.process.kill()
            raise

    def tell(self, what, **values):
        answer = kit.http("POST", f"{self.control}/{what}", values)
        assert answer.status == 200, answer.json()["error"]
        return answer.json()["result"]

    def on(self, match=None, **rule):
        """What befalls the requests that hold the text `match`: see aws_server.py."""
        self.tell("rule", match=match, **rule)

    def set(self, **values):
        self.tell("set", **values)

    def seen(self, match=None):
        """The requests that hold the text."""
        return [shown(value) for value in self.tell("seen", match=match)]

    def one(self, match, timeout=30.0):
        """The only request with the text."""
        (found,) = kit.wait_until(lambda: self.seen(match), timeout, f"a request with {match}")
        return found

    def reset(self):
        self.tell("reset")

    def wrong(self):
        return self.tell("wrong")

    def stop(self):
        self.process.stop()


def shown(value):
    value["body"] = base64.b64decode(value["body"])
    seen = types.SimpleNamespace(**value)
    if seen.body[:1] == b"{":
        seen.json = json.loads(seen.body)
    return seen
