"""Runs in the scanners' own environment (requirements-scan.txt), whose pins are at odds with ours: parliament and
cloudsplaining over IAM policies. Input on stdin, {name: policy}; output, a list of {tool, check, where, text}.
"""

import json
import sys
from typing import Any

from cloudsplaining.scan.policy_document import PolicyDocument
from parliament import analyze_policy_string

# What cloudsplaining asks of a policy document; each gives what it found.
QUESTIONS = {
    "privilege escalation": lambda document: [one["type"] for one in document.allows_privilege_escalation],
    "resource exposure": lambda document: document.permissions_management_without_constraints,
    "data exfiltration": lambda document: document.allows_data_exfiltration_actions,
    "service wildcard": lambda document: document.service_wildcard,
    "credentials exposure": lambda document: document.credentials_exposure,
    "infrastructure modification": lambda document: document.infrastructure_modification,
}


def main() -> None:
    found: list[dict[str, Any]] = []
    for name, policy in json.load(sys.stdin).items():
        for one in analyze_policy_string(json.dumps(policy)).findings:
            text = f"{one.title}: {one.detail} {json.dumps(one.location, default=str)}"
            found.append({"tool": "parliament", "check": one.issue, "where": name, "text": text})
        document = PolicyDocument(policy)
        for check, ask in QUESTIONS.items():
            for action in sorted(set(ask(document))):
                found.append({"tool": "cloudsplaining", "check": check, "where": f"{name} {action}", "text": action})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
