"""A real redis-server, of Debian's package of that name: on a port of its own, with no file behind it."""

import signal
import socket

import kit


class RedisServer:
    """Begins empty each time it is started."""

    def __init__(self, folder, name="redis"):
        self.folder, self.name = folder, name
        self.port = kit.free_port()
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = kit.Process(command, self.folder, self.name)

        def up():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as asked:
                    asked.sendall(b"PING\r\n")
                    return asked.recv(5) == b"+PONG"
            except OSError:
                assert self.process.alive(), self.process.output()
                return False

        kit.wait_until(up, 60, "redis-server")

    def hang(self):
        self.process.signal(signal.SIGSTOP)

    def go_on(self):
        self.process.signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()

    def stop(self):
        self.kill()
