"""docs/clusters/aws_access.yaml and cluster.yaml together, played through against moto's AWS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "docs/clusters/aws_access.yaml"
OFFICE = "203.0.113.7/32"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS account in this process; nothing goes over the network."""
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the SSH key there
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "for-moto-only")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-moto-only")
    with mock_aws():
        yield


def create_stack(ssh_cidr: str) -> None:
    import boto3

    boto3.client("cloudformation", region_name="us-west-2").create_stack(
        StackName="dsfedmed",
        TemplateBody=TEMPLATE.read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": "SshCidr", "ParameterValue": ssh_cidr}],
    )


def test_the_template_is_valid_cloudformation() -> None:
    from cfnlint.api import ManualArgs, lint  # type: ignore[import-untyped]

    remarks = lint(TEMPLATE.read_text(), config=ManualArgs(regions=["us-west-2"]))
    assert [str(remark) for remark in remarks] == []


@pytest.mark.slow
def test_ray_up_makes_nodes_that_only_ssh_reaches(aws: None) -> None:
    """Ray's own AWS provider starts every node type; the one door is SSH from one address."""
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    create_stack(OFFICE)
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node_type in config["available_node_types"].items():
        provider.create_node(node_type["node_config"], {"ray-node-name": name}, 1)

    ec2 = boto3.client("ec2", region_name="us-west-2")
    nodes = [n for r in ec2.describe_instances()["Reservations"] for n in r["Instances"]]
    profiles = {n["InstanceType"]: n["IamInstanceProfile"]["Arn"].split("/")[-1] for n in nodes}
    assert profiles == {
        "g5.2xlarge": "dsfedmed-head",
        "g4dn.xlarge": "dsfedmed-worker",
        "m6i.2xlarge": "dsfedmed-worker",
    }
    groups = {group["GroupId"] for node in nodes for group in node["SecurityGroups"]}
    assert len(groups) == 1
    (rules,) = ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    from_outside = [rule for rule in rules["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)]
    assert from_outside[0]["IpRanges"] == [{"CidrIp": OFFICE}]
    from_groups = [g for rule in rules["IpPermissions"] for g in rule["UserIdGroupPairs"]]
    assert [group["GroupId"] for group in from_groups] == list(groups)
    assert [rule["Ipv6Ranges"] for rule in rules["IpPermissions"]] == [[], []]


def test_the_whole_world_is_no_ssh_range() -> None:
    """0.0.0.0/0 does not match the parameter's pattern: ranges wider than /16 are refused."""
    import re

    class Loader(yaml.SafeLoader):
        """Reads the template; CloudFormation's own tags do not matter here."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: suffix)
    parameters = yaml.load(TEMPLATE.read_text(), Loader)["Parameters"]
    pattern = re.compile(parameters["SshCidr"]["AllowedPattern"])
    assert pattern.fullmatch(OFFICE)
    assert pattern.fullmatch("10.1.0.0/16")
    assert not pattern.fullmatch("0.0.0.0/0")
    assert not pattern.fullmatch("203.0.113.7")
