"""Amazon SQS, of the AWS that the tests play: queues that keep visibility, receipts, redrive and deduplication.

What a request may hold and what an answer must is botocore's model of `sqs` (the JSON protocol: the operation is in a header).
The queues are the world's `queues`, by name: `visibility` in seconds, and of a redrive policy `max_receives` and `dead`, the
name of another queue. One whose name ends in `.fifo` takes out what has a deduplication id that it knows.
"""

import asyncio
import hashlib
import itertools
import time
import uuid

import aws_model
from aws_model import Refused

ACCOUNT = "123456789012"
TARGET = "AmazonSQS."
OPERATIONS = {
    name: operation
    for name in (
        "SendMessage",
        "ReceiveMessage",
        "DeleteMessage",
        "ChangeMessageVisibility",
        "GetQueueAttributes",
        "PurgeQueue",
    )
    for operation in [aws_model.service("sqs").operation_model(name)]
}
# What messages together may have, in bytes.
MOST = 256 * 1024
_receipts = itertools.count(1)


class Queue:
    def __init__(self, visibility=30, max_receives=None, dead=None):
        self.visibility, self.max_receives, self.dead = visibility, max_receives, dead
        self.messages = []
        self.known = {}


class Message:
    def __init__(self, body, attributes, group):
        self.id, self.body, self.attributes, self.group = str(uuid.uuid4()), body, attributes, group
        self.visible, self.receives, self.receipt = 0.0, 0, None


def is_asked(asked):
    return asked.headers.get("x-amz-target", "").startswith(TARGET)


def refused(code, message, query=None, status=400):
    body = {"__type": f"com.amazonaws.sqs#{code}", "message": message}
    return Refused(status, None, body, {"x-amzn-query-error": f"{query or code};Sender"})


def queue_of(world, url):
    parts = url.split("/")
    name = parts[-1]
    if parts[-2:-1] != [ACCOUNT] or name not in world.queues:
        raise refused("QueueDoesNotExist", "The specified queue does not exist.", "AWS.SimpleQueueService.NonExistentQueue")
    return name, world.queues[name]


def visible(world, name, queue):
    """The messages that can be received now; those received too often go to the dead letters first."""
    now = time.monotonic()
    found = [message for message in queue.messages if message.visible <= now]
    if queue.max_receives is not None:
        for message in [message for message in found if message.receives >= queue.max_receives]:
            queue.messages.remove(message)
            found.remove(message)
            message.receives = 0
            world.queues[queue.dead].messages.append(message)
    return found


async def wait(world, asked):
    """Waits for as long as a receive may, or until there is a message."""
    try:
        params = aws_model.load(asked.body)
        name, queue = queue_of(world, params["QueueUrl"])
        seconds = min(float(params.get("WaitTimeSeconds", 0)), 20)
    except (Refused, KeyError, TypeError, ValueError):
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end and not visible(world, name, queue):
        await asyncio.sleep(0.02)


def respond(world, asked, authorise):
    """Status, headers and body."""
    headers = {"content-type": "application/x-amz-json-1.0"}
    try:
        operation = OPERATIONS.get(asked.headers["x-amz-target"].removeprefix(TARGET))
        if operation is None or (asked.method, asked.path) != ("POST", "/"):
            raise refused("InvalidAction", "The action or operation requested is invalid.")
        asked.operation = operation.name
        if asked.headers.get("content-type") != headers["content-type"]:
            raise refused("InvalidAction", "The content type is not that of the protocol.")
        authorise("sqs")
        params = aws_model.read(operation, {}, {}, asked.headers, asked.body)
        asked.params = params
        name, queue = queue_of(world, params["QueueUrl"])
        value = globals()[operation.name](world, name, queue, params)
        if operation.output_shape is None:
            return 200, headers, b""
        value = aws_model.checked(operation.output_shape, value)
        return 200, headers, aws_model.dump(aws_model.plain(operation.output_shape, value))
    except Refused as error:
        body = error.body if isinstance(error.body, dict) else {}
        asked.error = error.code or body.get("__type", "").partition("#")[2]
        if error.code:
            body = {"__type": f"com.amazon.coral.service#{error.code}", **body}
        return error.status, headers | error.headers, aws_model.dump(body)


def SendMessage(world, name, queue, params):
    body, attributes = params["MessageBody"], params.get("MessageAttributes") or {}
    size = len(body.encode()) + sum(len(key) + len(str(value)) for key, value in attributes.items())
    allowed = all(c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" for c in body)
    if not body or size > MOST or not allowed or len(attributes) > 10:
        raise refused("InvalidMessageContents", "The message is empty, too long or has characters that are not allowed.")
    once = params.get("MessageDeduplicationId")
    if name.endswith(".fifo") and not (once and params.get("MessageGroupId")):
        raise refused("MissingParameter", "A message of a FIFO queue has a group and a deduplication id.")
    if not name.endswith(".fifo") and once:
        raise refused("InvalidParameterValue", "The request has a parameter that this queue does not take.")
    message = queue.known.get(once)
    if message is None:
        message = Message(body, attributes, params.get("MessageGroupId"))
        queue.messages.append(message)
        if once:
            queue.known[once] = message
    return {"MessageId": message.id, "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}


def ReceiveMessage(world, name, queue, params):
    most = params.get("MaxNumberOfMessages", 1)
    if not 1 <= most <= 10 or not 0 <= params.get("WaitTimeSeconds", 0) <= 20:
        raise refused("InvalidParameterValue", "MaxNumberOfMessages or WaitTimeSeconds is out of range.")
    hidden = params.get("VisibilityTimeout", queue.visibility)
    wanted = params.get("MessageSystemAttributeNames") or params.get("AttributeNames") or []
    more = params.get("MessageAttributeNames") or []
    messages = []
    for message in visible(world, name, queue)[:most]:
        message.visible = time.monotonic() + hidden
        message.receives += 1
        message.receipt = f"{message.id}/{next(_receipts)}"
        known = {"ApproximateReceiveCount": str(message.receives), "MessageGroupId": message.group}
        known = {key: value for key, value in known.items() if value and (key in wanted or "All" in wanted)}
        attributes = {key: value for key, value in message.attributes.items() if key in more or "All" in more}
        messages.append({
            "MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body,
            "MD5OfBody": hashlib.md5(message.body.encode()).hexdigest(),
            "Attributes": known or None, "MessageAttributes": attributes or None,
        })  # fmt: skip
        messages[-1] = {key: value for key, value in messages[-1].items() if value is not None}
    return {"Messages": messages or None}


def held(queue, receipt):
    """The message of a receipt; none where it was deleted."""
    id = receipt.partition("/")[0]
    if "/" not in receipt:
        raise refused("ReceiptHandleIsInvalid", f'The input receipt handle "{receipt}" is not a valid receipt handle.')
    return next((message for message in queue.messages if message.id == id), None)


def DeleteMessage(world, name, queue, params):
    message = held(queue, params["ReceiptHandle"])
    # With the receipt of an earlier receive it is not deleted, and nobody is told.
    if message and message.receipt == params["ReceiptHandle"]:
        queue.messages.remove(message)


def ChangeMessageVisibility(world, name, queue, params):
    message = held(queue, params["ReceiptHandle"])
    seconds = params["VisibilityTimeout"]
    if not 0 <= seconds <= 43_200:
        raise refused("InvalidParameterValue", "VisibilityTimeout is out of range.")
    if message is None or message.receipt != params["ReceiptHandle"] or message.visible <= time.monotonic():
        raise refused("MessageNotInflight", "The message referred to isn't in flight.", "AWS.SimpleQueueService.MessageNotInflight")
    message.visible = time.monotonic() + seconds


def GetQueueAttributes(world, name, queue, params):
    ready = len(visible(world, name, queue))
    counts = {"ApproximateNumberOfMessages": ready, "ApproximateNumberOfMessagesNotVisible": len(queue.messages) - ready}
    wanted = params.get("AttributeNames") or []
    return {"Attributes": {key: str(value) for key, value in counts.items() if key in wanted or "All" in wanted}}


def PurgeQueue(world, name, queue, params):
    queue.messages.clear()
