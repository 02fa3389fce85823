"""People of a deployment on the local cloud, whose transactions are one step, as on AWS and not in moto itself."""

from __future__ import annotations

import threading

import boto3
import httpx

from admin.deployment import Deployment
from admin.users import add_user
from chalicelib.errors import AdminError
from local.cloud import Cloud
from tests.local.clouds import client, cloud, no_faults  # noqa: F401


def test_of_many_who_take_a_name_at_once_one_gets_it(cloud: Cloud) -> None:  # noqa: F811
    got: list[str] = []
    refused: list[str] = []
    barrier = threading.Barrier(6)
    # A session is of one thread.
    deployments = [Deployment("local", boto3.Session()) for _ in range(6)]

    def take(deployment: Deployment) -> None:
        barrier.wait()
        try:
            got.append(add_user(deployment, "grace"))
        except AdminError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=(deployment,)) for deployment in deployments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    rows = client(cloud, "dynamodb").scan(TableName="nod-local-users")["Items"]
    assert [row["id"]["S"] for row in rows if row.get("name", {}).get("S") == "grace"] == [got[0].split(".")[1]]
    answer = httpx.get(f"{cloud.api_url}/notebooks", headers={"Authorization": f"Bearer {got[0]}"}, trust_env=False)
    assert answer.status_code == 200
