"""What `make local` and `make demo` do once this machine is found able to."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

from local.cloud import DEMO_MAIL, ROOT, Cloud
from local.image import ensure_image
from local.installer import Installer, ensure_installer, prefetch
from local.processes import children, tied
from local.settings import Settings
from local.steps import Steps
from local.stopped import Stopped

NOTEBOOK = "demo"


class Demo:
    """One run. Its methods are called in the main thread, which lives as long as the process does."""

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._steps = Steps()
        self._installed = ""
        self._notebook: str | None = None
        # The id of the thread that fetches; no thread has 0.
        self._fetcher = 0

    def serve(self) -> int:
        """The local cloud until Ctrl-C."""
        with closing(self._open()) as cloud:
            self._tell(cloud)
            self._until_stopped()
        return 0

    def demo(self) -> int:
        """The local cloud, a notebook in it, both until Ctrl-C."""
        with closing(self._open()) as cloud:
            self._confirm(cloud)
            code = self._request(cloud)
            if code != 0:
                return code
            self._notebook = NOTEBOOK
            self._tell(cloud)
            self._until_stopped()
        return 0

    def _open(self) -> Cloud:
        with self._steps:
            image, installer = self._prepare()
            with self._steps.step("Local cloud"):
                cloud = Cloud(
                    self._settings.state,
                    image=image,
                    installer=installer,
                    api_port=self._settings.api_port,
                    aws_port=self._settings.aws_port,
                    faults=self._settings.faults,
                )
                cloud.open()
        return cloud

    def _prepare(self) -> tuple[Path, Installer | None]:
        own = self._settings.installer
        with ThreadPoolExecutor(1) as pool:
            fetched = pool.submit(self._prefetch) if own is None else None
            try:
                with self._steps.step("Machine image") as news:
                    image = ensure_image(self._settings.cache, news)
                if fetched is not None:
                    fetched.result()
            except Stopped:
                # The pool waits for it, and a download can take minutes.
                while fetched is not None and not fetched.done():
                    for pid in children(self._fetcher):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGTERM)
                    wait([fetched], 0.2)
                raise
        if own is not None:
            self._installed = f"the installer at {own[0]}"
            return image, None
        with self._steps.step("Stand-in installer") as news:
            installer = ensure_installer(self._settings.cache, image, news)
        self._installed = f"the stand-in installer {installer.name}, not Anaconda"
        return image, installer

    def _prefetch(self) -> None:
        self._fetcher = threading.get_native_id()
        with self._steps.step("Packages of the stand-in installer") as news:
            prefetch(self._settings.cache, news)

    def _confirm(self, cloud: Cloud) -> None:
        # What a person does once: visit the link in the confirmation mail. Until then SNS sends no mail.
        try:
            mail = cloud.inbox.wait(lambda each: DEMO_MAIL in each.recipients and bool(each.links))
        except TimeoutError:
            # The fault notification_fails, for one. The link is on the screen in any case.
            self._steps.say(f"The mail that asks {DEMO_MAIL} to confirm did not arrive: going on without mail")
            return
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(mail.links[0], timeout=10):
            self._steps.say(f"Confirmed the subscription of {DEMO_MAIL} by the link in its mail")
        # On AWS the next look at confirmations is at most a minute away.
        cloud.run_schedules()

    def _request(self, cloud: Cloud) -> int:
        command = [sys.executable, "-m", "nod", "request", "--name", NOTEBOOK]
        if self._as_json:
            command.append("--json")
        environment = {**os.environ, "NOD_URL": cloud.api_url, "NOD_TOKEN": cloud.token}
        # It bears lost connections for an hour: left behind, it would ask the next local cloud with this one's token.
        client = subprocess.Popen(tied(*command), cwd=ROOT, env=environment)
        try:
            return client.wait()
        finally:
            if client.poll() is None:
                client.send_signal(signal.SIGINT)
                try:
                    client.wait(3)
                except subprocess.TimeoutExpired:
                    client.kill()
                    client.wait()

    def _tell(self, cloud: Cloud) -> None:
        nod = Path(sys.executable).with_name("nod")
        client = _short(nod) if nod.exists() else f"{_short(Path(sys.executable))} -m nod"
        for line in (
            "",
            f"API        {cloud.api_url}",
            f"AWS APIs   {cloud.aws_url}",
            f"Inbox      {cloud.aws_url}/_local/inbox (the mail that was sent)",
            f"Slack      {cloud.aws_url}/_local/slack (the messages that were posted)",
            f"Installed  {self._installed}",
            f"Faults     {', '.join(cloud.faults.names()) or 'none'}",
            f"Logs       {_short(self._settings.state / 'log')}",
            "",
            f"The client, in another terminal in {Path.cwd()}:",
            f"  export NOD_URL={cloud.api_url} NOD_TOKEN=$(cat {shlex.quote(_short(self._settings.state / 'token'))})",
            f"  {client} list",
            *self._life(client),
            "",
            "Runs until Ctrl-C, which removes the notebooks too.",
        ):
            self._steps.say(line)

    def _life(self, client: str) -> list[str]:
        """What else there is to try, once there is a notebook."""
        if not self._notebook:
            return []
        return [
            f"  {client} stop {self._notebook}    # its disk stays",
            f"  {client} show {self._notebook} --watch   # until it is stopped",
            f"  {client} start {self._notebook}   # or open its link, which wakes it: {client} link {self._notebook}",
            f"  {client} events {self._notebook}  # why it was kept, warned of or stopped",
            "",
            "It stops by itself when nobody and nothing uses it; NOD_MINUTE_SECONDS=2 makes its minutes shorter.",
        ]

    def _until_stopped(self) -> None:
        try:
            threading.Event().wait()
        except Stopped:
            self._steps.say("Ending: machines down, nothing is kept.")


def _short(path: Path) -> str:
    """Relative to the current folder where it is below it, as a person would type it."""
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
