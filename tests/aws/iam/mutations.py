"""Policies with one thing taken out: each must be noticed, or the policy allows more than anyone needs."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.aws.iam import cases
from tests.aws.iam.cases import Case
from tests.aws.iam.deployment import Principal, listed, principals
from tests.aws.iam.simulator import Question, ask

# What stands in a policy though the evaluator sees no need, and why. One that is needed after all fails the tests.
ARGUED = {
    (
        "machine",
        "Null ec2:SourceInstanceARN",
    ): "the evaluator, as the IAM User Guide has it, lets a condition fail whose "
    "variable has no value; the policy does not rest on that alone",
}


@dataclass(frozen=True)
class Mutation:
    """`without` is a role's policies lacking one thing; `kind` says what: an action, a statement, a resource, a
    condition, or one of a condition's values."""

    principal: str
    kind: str
    what: str
    actions: tuple[str, ...]
    """Of the statement that changed: only they can come out otherwise."""
    without: Sequence[Mapping[str, Any]]

    @property
    def loosens(self) -> bool:
        """Whether more is allowed than before, or less."""
        return self.kind == "condition"

    @property
    def argued(self) -> bool:
        """Whether it is in ARGUED."""
        return (self.principal, self.what.partition(" of: ")[0]) in ARGUED

    def __str__(self) -> str:
        if self.argued:
            return f"{self.principal}: the {self.kind} {self.what} is needed and need not be argued"
        return f"{self.principal}: nobody notices the lack of the {self.kind} {self.what}"


@functools.cache
def mutations() -> list[Mutation]:
    """All of them, of every policy that is ours."""
    return [one for principal in principals().values() for one in _of(principal)]


def _of(principal: Principal) -> Iterator[Mutation]:
    for statement in principal.statements():
        actions = tuple(statement.actions)
        place = f"{', '.join(actions)} on {', '.join(map(str, listed(statement.body['Resource'])))}"

        def made(
            kind: str,
            what: str,
            body: dict[str, Any] | None,
            number: int = statement.policy,
            index: int = statement.index,
            actions: tuple[str, ...] = actions,
        ) -> Mutation:
            policies = copy.deepcopy(list(principal.policies))
            statements = policies[number]["Statement"]
            if body is None:
                del statements[index]
            else:
                statements[index] = body
            kept = [policy for policy in policies if policy["Statement"]]
            return Mutation(principal.name, kind, what, actions, [*kept, *principal.documents()[len(policies) :]])

        yield made("statement", place, None)
        for part, kind in (("Action", "action"), ("Resource", "resource")):
            values = listed(statement.body[part])
            for value in values:
                rest = [one for one in values if one != value]
                body = {**statement.body, part: rest} if rest else None
                yield made(kind, f"{value} of: {place}", body)
        for operator, keys in statement.body.get("Condition", {}).items():
            for key, values in keys.items():
                conditions = copy.deepcopy(dict(statement.body["Condition"]))
                del conditions[operator][key]
                conditions = {name: one for name, one in conditions.items() if one}
                body = {name: one for name, one in statement.body.items() if name != "Condition"}
                yield made(
                    "condition",
                    f"{operator} {key} of: {place}",
                    body | ({"Condition": conditions} if conditions else {}),
                )
                for value in listed(values):
                    rest = [one for one in listed(values) if one != value]
                    if not rest:
                        continue
                    fewer = copy.deepcopy(dict(statement.body["Condition"]))
                    fewer[operator][key] = rest
                    yield made("value", f"{value} of {key} of: {place}", {**statement.body, "Condition": fewer})


def unnoticed(found: Sequence[Mutation]) -> list[str]:
    """Those that leave every case as it was, in words."""
    by_principal: dict[tuple[str, bool], list[Case]] = defaultdict(list)
    for case in cases.needed_cases():
        by_principal[case.principal, True].append(case)
    for case in (*cases.variations(), *cases.attacks(), *cases.strangers()):
        by_principal[case.principal, False].append(case)
    questions: list[Question] = []
    owners: list[int] = []
    for number, mutation in enumerate(found):
        for case in by_principal[mutation.principal, not mutation.loosens]:
            if case.asked.action in mutation.actions:
                questions.append(Question(mutation.without, case.asked))
                owners.append(number)
    noticed = {
        number for number, answer in zip(owners, ask(questions), strict=True) if answer.allowed == found[number].loosens
    }
    return [str(mutation) for number, mutation in enumerate(found) if (number in noticed) == mutation.argued]
