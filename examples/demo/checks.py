"""The promises of the README, checked against the running demo: one line each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stage import CLIENTS, PASSPHRASE, DemoFailed, Stage, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Report:
    """What held and what did not."""

    failures: int = 0
    started: float = field(default_factory=time.monotonic)

    def check(self, name: str, promise: Callable[[], str]) -> None:
        """Print one line: whether the promise held, and what was seen."""
        begun = time.monotonic()
        try:
            seen, word = promise(), "ok"
        except DemoFailed as failure:
            seen, word = str(failure), "FAILED"
            self.failures += 1
        print(f"{word:<7} {name} ({time.monotonic() - begun:.1f} s): {seen}", flush=True)


def run(stage: Stage) -> int:
    """Check everything and return the exit code."""
    report, promises = Report(), Promises(stage)
    report.check("a commit reaches every approved client", promises.commit_arrives)
    report.check("a person can run a backup at once", promises.person_runs_one)
    report.check("the director survives kill -9", promises.director_survives)
    report.check("an invalid push is refused, with file:line:column", promises.broken_push_is_refused)
    report.check("a broken commit changes nothing anywhere", promises.broken_commit_changes_nothing)
    promises.edit_by_hand()
    report.check("an edit by hand is reported with a diff, and healed", promises.drift_is_healed)
    report.check("with drift: report it is only reported", promises.drift_is_reported)
    report.check("a changed commit changes exactly its client", promises.change_arrives)
    report.check("a client survives kill -9", promises.client_survives)
    report.check("a removed backup leaves its archives alone", promises.removal_destroys_nothing)
    report.check("backups run on schedule into repositories made on first use", promises.backups_run)
    report.check("runs, logs and archives flow back, each once", promises.facts_flow_back)
    report.check("the dashboard shows it all", promises.dashboard_shows)
    took = time.monotonic() - report.started
    print(f"{'all promises hold' if not report.failures else f'{report.failures} promises do not hold'} ({took:.0f} s)")
    return 1 if report.failures else 0


class Promises:
    """Each method returns what was seen, or raises ``DemoFailed``."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.edited: dict[str, bytes] = {}

    def clients(self) -> dict[str, Any]:
        return {one["name"]: one for one in self.stage.read("clients", "list")}

    def all_current(self) -> bool:
        found = self.clients().values()
        return len(found) == len(CLIENTS) and all(one["following"] == "current" and one["connected"] for one in found)

    def managed(self, client: str, backup: str) -> Any:
        return self.stage.folder / client / "borgmatic.d" / f"{backup}.yaml"

    def commit_arrives(self) -> str:
        begun = time.monotonic()
        wait_for("every client follows the commit", self.all_current)
        took = time.monotonic() - begun
        for client, backup in (("atlas", "photos"), ("atlas", "system"), ("luna", "home"), ("luna", "system")):
            if not self.managed(client, backup).is_file():
                raise DemoFailed(f"{client} has no {backup}.yaml")
        return f"{len(CLIENTS)} clients applied it {took:.1f} s after the push returned"

    def director_survives(self) -> str:
        before = {name: one["desiredGeneration"] for name, one in self.clients().items()}
        self.stage.kill("director")
        self.stage.start_director()
        wait_for("clients come back", self.all_current)
        after = {name: one["desiredGeneration"] for name, one in self.clients().items()}
        if before != after:
            raise DemoFailed(f"generations changed from {before} to {after}")
        return "clients came back by themselves, nothing was issued anew"

    def broken_push_is_refused(self) -> str:
        with self.stage.edit("backups/photos.yaml") as backup:
            backup["spec"]["repositories"] = ["nsa"]
            backup["spec"]["borgmatic"]["keep_dayly"] = 3
        refused = self.stage.push("Break it", check=False)
        self.stage.git("reset", "--quiet", "--hard", "HEAD~1")
        for wanted in ("backups/photos.yaml:", "did you mean 'nas'", "keep_dayly"):
            if refused.returncode == 0 or wanted not in refused.stderr:
                raise DemoFailed(f"the push was not refused with {wanted!r}:\n{refused.stderr}")
        return next(line.removeprefix("remote: ") for line in refused.stderr.splitlines() if "photos.yaml:" in line)

    def broken_commit_changes_nothing(self) -> str:
        stage, before = self.stage, self.snapshot()
        file = stage.source / "backups" / "home.yaml"
        file.write_text(file.read_text(encoding="utf-8") + "  schedule: [\n", encoding="utf-8")
        stage.git("commit", "--quiet", "--all", "--message", "Break it behind the hook's back")
        # Fetching into the bare repository runs no hook, as an administrator with a shell could.
        stage.run("git", f"--git-dir={stage.bare}", "fetch", "--quiet", str(stage.source), "+HEAD:main")
        source = wait_for(
            "the source is stalled", lambda: self.source_condition("Stalled", "InvalidSource"), seconds=20
        )
        problem = source["problems"][0]
        place = f"{problem['path']}:{problem['line']}:{problem['column']}"
        if self.snapshot() != before:
            raise DemoFailed("something changed on a client")
        if place not in stage.page("/source"):
            raise DemoFailed(f"the source page does not say {place}")
        stage.git("revert", "--no-edit", "HEAD")
        stage.git("push", "--quiet", "deploy", "HEAD:main")
        wait_for("the next good commit is published", lambda: self.source_condition("Ready", "Published"))
        return f"{place}: {problem['message']}"

    def source_condition(self, kind: str, reason: str) -> Any:
        source = self.stage.read("status")["source"]
        found = any(
            one["type"] == kind and one["status"] == "True" and one["reason"] == reason for one in source["conditions"]
        )
        return source if found else None

    def snapshot(self) -> dict[str, bytes]:
        folders = [self.stage.folder / client / "borgmatic.d" for client in CLIENTS]
        return {str(path): path.read_bytes() for folder in folders for path in sorted(folder.iterdir())}

    def edit_by_hand(self) -> None:
        """Edit a managed file on both machines, at once, so that both are looked for at the same time."""
        for client in CLIENTS:
            file = self.managed(client, "system")
            self.edited[client] = file.read_bytes()
            file.write_bytes(self.edited[client] + b"# by hand\n")

    def drift_is_healed(self) -> str:
        file, before = self.managed("atlas", "system"), self.edited["atlas"]
        drift = wait_for("drift is reported with a diff", lambda: self.drift("atlas", "+# by hand"), seconds=60)
        wait_for("the file is healed", lambda: file.read_bytes() == before, seconds=60)
        return f"{drift['subject']}: {drift['message']}"

    def drift_is_reported(self) -> str:
        file, before = self.managed("luna", "system"), self.edited["luna"]
        wait_for("drift is reported with a diff", lambda: self.drift("luna", "+# by hand"), seconds=60)
        if file.read_bytes() == before:
            raise DemoFailed("it was healed, although the client says report")
        file.write_bytes(before)
        wait_for("the drift is over", lambda: not self.drift("luna", "+# by hand"), seconds=60)
        return "reported, left alone, and gone when the person took it back"

    def drift(self, client: str, text: str) -> Any:
        return next((one for one in self.stage.read("drift", "--client", client) if text in one["diff"]), None)

    def person_runs_one(self) -> str:
        self.stage.client("luna", "once", "home")
        run = wait_for(
            "the run is reported", lambda: next(iter(self.stage.read("runs", "--outcome", "succeeded")), None)
        )
        return f"{run['client']}/{run['backup']} {run['outcome']}, started by a {run['trigger']}"

    def backups_run(self) -> str:
        wanted = {("atlas", "photos"), ("atlas", "system"), ("luna", "system")}

        def seen() -> Any:
            runs = self.stage.read("runs")
            bad = [one for one in runs if one["outcome"] in {"failed", "lost", "warned"}]
            if bad:
                raise DemoFailed(f"{bad[0]['client']}/{bad[0]['backup']} {bad[0]['outcome']}: {bad[0]['error']}")
            scheduled = [one for one in runs if one["outcome"] == "succeeded" and one["trigger"] == "schedule"]
            return wanted <= {(one["client"], one["backup"]) for one in scheduled}

        wait_for("every backup has run", seen, seconds=75)
        return ", ".join(f"borg lists {len(self.archives(client))} archives for {client}" for client in CLIENTS)

    def archives(self, client: str) -> set[str]:
        """Return the names of a client's archives, as Borg itself lists them."""
        secret = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        repository = str(self.stage.folder / "nas" / client)
        return set(self.stage.run("borg", "list", "--short", "--lock-wait=20", repository, also=secret).stdout.split())

    def facts_flow_back(self) -> str:
        archives = wait_for("archives are reported", lambda: self.stage.read("archives"))
        runs = self.stage.read("runs")
        if len({one["id"] for one in runs}) != len(runs):
            raise DemoFailed("a run is stored twice")
        log = self.stage.read("runs", "--run", next(one["id"] for one in runs if one["outcome"] == "succeeded"))["log"]
        if not log:
            raise DemoFailed("a run has no log")
        try:
            wait_for("every backup is protected", lambda: not self.unprotected(), seconds=20)
        except DemoFailed as failure:
            raise DemoFailed(f"{failure}: {', '.join(self.unprotected())}") from failure
        return f"{len(runs)} runs, {len(archives)} archives, {len(log)} log lines of one run; all backups are protected"

    def unprotected(self) -> list[str]:
        """Return the backups that are not protected, each with the reason."""
        found = []
        for one in self.stage.read("backups"):
            condition = next(each for each in one["conditions"] if each["type"] == "Protected")
            if condition["status"] != "True":
                found.append(f"{one['client']}/{one['backup']}: {condition['reason']}: {condition['message']}")
        return found

    def client_survives(self) -> str:
        # Between two minutes: a run that is killed is reported as lost (tests/e2e sees to that), and waited for here.
        wait_for("atlas rests", lambda: 2 < time.time() % 60 < 50 and not self.running("atlas"), seconds=40)
        self.stage.kill("atlas")
        self.stage.start_client("atlas")
        wait_for("atlas comes back", self.all_current)
        return "it came back with its last good state"

    def running(self, client: str) -> bool:
        return any(one["outcome"] is None for one in self.stage.read("runs", "--client", client))

    def change_arrives(self) -> str:
        before = {name: one["appliedDigest"] for name, one in self.clients().items()}
        with self.stage.edit("backups/home.yaml") as backup:
            backup["spec"]["borgmatic"]["exclude_patterns"].append("*/Trash")
        begun = time.monotonic()
        self.stage.push("Leave the trash out")
        wait_for(
            "luna applied the change",
            lambda: self.clients()["luna"]["appliedDigest"] != before["luna"] and self.all_current(),
        )
        took = time.monotonic() - begun
        if self.clients()["atlas"]["appliedDigest"] != before["atlas"]:
            raise DemoFailed("atlas was changed, too")
        if "*/Trash" not in self.managed("luna", "home").read_text(encoding="utf-8"):
            raise DemoFailed("the file on luna does not have it")
        return f"luna has it {took:.1f} s after the push began, atlas was not touched"

    def dashboard_shows(self) -> str:
        run = self.stage.read("runs")[0]
        pages = {
            "/": "atlas",
            "/clients": "luna",
            "/clients/atlas": "photos",
            "/backups": "system",
            f"/runs/{run['id']}": run["backup"],
            "/repositories": "nas",
            "/source": self.stage.git("rev-parse", "HEAD").stdout[:12],
        }
        for path, wanted in pages.items():
            page = self.stage.page(path)
            if wanted not in page:
                raise DemoFailed(f"{path} does not show {wanted!r}")
            if PASSPHRASE in page or "bd1-sealed." in page:
                raise DemoFailed(f"{path} shows a secret")
        return f"{len(pages)} pages, none with a secret"

    def removal_destroys_nothing(self) -> str:
        stage = self.stage
        before = self.archives("luna")
        (stage.source / "backups" / "home.yaml").unlink()
        (stage.source / "schedules" / "lunchtime.yaml").unlink()
        stage.push("Luna's home is no longer backed up\n\nDirector-Acknowledge: all")
        wait_for("the managed file is gone", lambda: not self.managed("luna", "home").exists())
        if not before or not before <= self.archives("luna"):
            raise DemoFailed("an archive is gone")
        return f"home.yaml is gone from luna, {', '.join(sorted(before))} is still there"
