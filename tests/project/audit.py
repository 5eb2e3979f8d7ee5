"""``make audit``: runs pip-audit for the packages installed with this one.

pip-audit also says "no known vulnerabilities" if it could look up nothing. So this program counts
the packages that were looked up, and says so if there are none. The exit code is 1 only for a
vulnerability, so that a build without the network passes.
"""

from __future__ import annotations

import json
import subprocess
import sys

__all__ = ["main", "verdict"]

COMMAND = ("-m", "pip_audit", "--progress-spinner", "off", "--timeout", "10", "--format", "json")


def verdict(report: str, problem: str) -> tuple[int, str]:
    """Returns the exit code and a text for pip-audit's report and its messages."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = problem.strip().splitlines() or ["it said nothing"]
        return 0, f"NOT AUDITED: pip-audit could not look anything up: {said[-1][:200]}"
    audited = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {each['id']}, "
        f"mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for package in audited
        for each in package["vulns"]
    ]
    if found:
        return 1, "\n".join(found)
    ours = [package for package in packages if package["name"].startswith("supabase-rt")]
    skipped = len(packages) - len(audited) - len([one for one in ours if one not in audited])
    if not audited:
        return 0, (
            f"NOT AUDITED: nothing is known of any of {skipped} packages; the database of "
            "vulnerabilities (pypi.org) cannot be reached from here"
        )
    left = f", {skipped} could not be looked up" if skipped else ""
    return 0, f"no known vulnerability in {len(audited)} packages{left}"


def main() -> int:
    """Audits the packages of the current environment."""
    done = subprocess.run(
        [sys.executable, *COMMAND], capture_output=True, text=True, check=False, timeout=600
    )
    code, text = verdict(done.stdout, done.stderr)
    sys.stdout.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
