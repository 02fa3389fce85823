"""A page without a browser, for tests: logs in to the notebook, makes kernels and terminals, sends them something.

Runs in the machine with Anaconda's Python, as root, so that it is no process of the notebook's user.

Usage: drive.py PASSWORD, then one JSON request a line on stdin ({"do": …}); one JSON answer a line on stdout.
"""

import json
import ssl
import sys
import time
import uuid

import requests
import websocket

URL = "https://127.0.0.1:8888"


class Page:
    def __init__(self, password: str) -> None:
        self.http = requests.Session()
        self.http.verify = False
        requests.packages.urllib3.disable_warnings()
        self.http.get(f"{URL}/login")
        form = {"password": password, "_xsrf": self.http.cookies["_xsrf"]}
        done = self.http.post(f"{URL}/login", data=form, allow_redirects=False)
        assert done.status_code == 302, done.status_code
        self.http.headers["X-XSRFToken"] = self.http.cookies["_xsrf"]

    def ask(self, method: str, path: str, body: object = None) -> object:
        done = self.http.request(method, URL + path, json=body)
        done.raise_for_status()
        return done.json() if done.content else None

    def socket(self, path: str) -> websocket.WebSocket:
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        return websocket.create_connection(
            URL.replace("https", "wss") + path, sslopt={"cert_reqs": ssl.CERT_NONE}, cookie=cookies, timeout=30
        )

    def kernel(self) -> str:
        return self.ask("POST", "/api/kernels", {"name": "python3"})["id"]  # type: ignore[index]

    def run(self, kernel: str, code: str, until: str) -> None:
        """Runs code, and goes away when the kernel has said `until` (`busy`, `idle`, `input_request`)."""
        session = uuid.uuid4().hex
        channel = self.socket(f"/api/kernels/{kernel}/channels?session_id={session}")
        header = {"msg_id": uuid.uuid4().hex, "session": session, "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": True}
        message = {"header": {**header, "msg_type": "execute_request"}, "parent_header": {}, "metadata": {}}
        channel.send(json.dumps({**message, "content": content, "channel": "shell", "buffers": []}))
        while True:
            answer = json.loads(channel.recv())
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if until in (answer["msg_type"], answer["content"].get("execution_state")):
                break
        channel.close()

    def type(self, terminal: str, text: str) -> None:
        channel = self.socket(f"/terminals/websocket/{terminal}")
        channel.send(json.dumps(["stdin", text]))
        time.sleep(0.3)
        channel.close()


def main() -> None:
    page = Page(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(page, request.pop("do"))(**request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
