"""``make demo``: a homelab on this machine, from a commit to archives in real Borg repositories.

Without ``--check`` it goes on until Ctrl-C, for you to try things. With it, it runs unattended, checks each promise of
the README, prints one line per check, and exits 0 only when all hold.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checks
from stage import CLIENTS, DemoFailed, Stage, wait_for


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(description="A director, two clients and the dashboard on this machine.")
    parser.add_argument("--check", action="store_true", help="run unattended and verify each outcome")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # a closed terminal cleans up as Ctrl-C does
    with Stage(Path(tempfile.mkdtemp(prefix="borgmatic-director-demo-"))) as stage:
        try:
            set_the_stage(stage)
            return checks.run(stage) if arguments.check else show(stage)
        except DemoFailed as failure:
            print(f"FAILED  {failure}", file=sys.stderr)
            for log in sorted(stage.folder.glob("*.log")):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
                print(f"\n--- {log.name}\n" + "\n".join(lines), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0 if not arguments.check else 1
        finally:
            print("cleaning up", flush=True)


def set_the_stage(stage: Stage) -> None:
    """Start everything, enrol two clients, and approve them by a commit."""
    say("a bare Git repository with hooks, sample data, and a director")
    stage.prepare()
    stage.start_director()
    say(f"enrolling {' and '.join(CLIENTS)} with a token")
    keys = stage.enrol()
    say("approving them by a commit, with three backups, pushed to the director")
    stage.adapt(keys)
    stage.push("Back up the homelab")


def show(stage: Stage) -> int:
    """Wait for the first archives, say what to try, and go on until Ctrl-C."""
    wait_for("both clients follow", checks.Promises(stage).all_current)
    say("both clients follow the commit; every backup runs at the full minute")
    environment = f"BORGMATIC_DIRECTOR_CONFIG={stage.folder}/director.toml"
    print(
        f"""
  dashboard   http://127.0.0.1:{stage.web_port}/

  try, in another terminal:

    export PATH={Path(sys.executable).parent}:$PATH {environment}
    director status
    director runs --follow
    cd {stage.source}                       # the Git work tree: edit, commit, `git push deploy HEAD:main`
    director plan .                          # what your edit would do, before you commit it
    echo '# by hand' >> {stage.folder}/atlas/borgmatic.d/system.yaml    # drift: healed on atlas
    echo '# by hand' >> {stage.folder}/luna/borgmatic.d/system.yaml     # drift: only reported on luna
    director drift
    director-client --config {stage.folder}/atlas/client.toml status

  Ctrl-C ends the demo and removes everything.
""",
        flush=True,
    )
    while True:
        time.sleep(3600)


def say(text: str) -> None:
    """Tell what happens."""
    print(f"· {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
