"""Least privilege: what each role may do is what its owner does, and nothing else.

The questions come from calls.json, which was recorded while the product ran, and from the template; the evaluator
knows resources and conditions (simulator.py). Nothing here lists a function or a workflow.
"""

from __future__ import annotations

import pytest

from tests.aws.iam import cases, mutations
from tests.aws.iam.cases import Case
from tests.aws.iam.deployment import MANAGED, principals
from tests.aws.iam.simulator import Question, ask


def judged(found: list[Case]) -> list[str]:
    """The cases that came out otherwise than they should, in words."""
    who = principals()
    answers = ask([Question(who[case.principal].documents(), case.asked) for case in found])
    wrong = []
    for case, answer in zip(found, answers, strict=True):
        if answer.error is not None:
            wrong.append(f"{case}: {answer.error}")
        elif answer.allowed != case.allowed:
            wrong.append(str(case))
        elif answer.allowed and answer.ignored:
            wrong.append(f"{case}: the action has no key {', '.join(answer.ignored)}")
    return wrong


def test_everyone_may_do_what_they_do() -> None:
    found = cases.needed_cases()
    assert not judged(found)


def test_every_type_of_the_catalogue_may_run() -> None:
    found = list(cases.types())
    assert len(found) > 100
    assert not judged(found)


def test_nobody_may_do_what_only_others_do() -> None:
    found = cases.strangers()
    assert not judged(found)


def test_nothing_is_allowed_to_the_resources_of_others_or_without_what_the_conditions_ask() -> None:
    assert not judged(cases.variations())


def test_attacks_are_refused() -> None:
    assert not judged(cases.attacks())


def test_there_are_as_many_cases_as_were_promised() -> None:
    allowed, denied = len(cases.needed_cases()), len(cases.variations()) + len(cases.attacks())
    assert allowed >= 200
    assert allowed + denied >= 500


def test_everyone_with_a_role_was_seen_at_work() -> None:
    """A new function or workflow whose calls nobody recorded would be judged by nothing."""
    seen = {case.principal for case in cases.needed_cases()}
    by_aws_alone = {name for name, one in principals().items() if one.service == "apigateway.amazonaws.com"}
    assert seen == principals().keys() - by_aws_alone


def test_managed_policies_are_known() -> None:
    for one in principals().values():
        assert set(one.managed) <= MANAGED.keys(), f"{one.name} has a policy that nobody here has read"


@pytest.mark.parametrize("kind", ["action", "statement", "resource", "condition", "value"])
def test_nothing_can_be_taken_out_of_a_policy_without_a_case_that_notices(kind: str) -> None:
    found = [one for one in mutations.mutations() if one.kind == kind]
    assert found
    unnoticed = mutations.unnoticed(found)
    assert not unnoticed
