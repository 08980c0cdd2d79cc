"""The files that start a cluster, as far as they can be checked without a cloud.

`ray up` files by the schema and the checks of the installed Ray; the Slurm script by bash and
shellcheck, and by running it with a Slurm of one machine; manifests by a schema of the operator's
fields, and by what a RayCluster needs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.kuberay import SCHEMAS

HERE = Path(__file__).parents[2] / "cluster"
LAUNCHED = ("aws.yaml", "gcp.yaml", "on-premises.yaml")
MANIFESTS = ("kubernetes-cluster.yaml", "kubernetes-job.yaml")


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((HERE / name).read_text())
    return content


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_file_for_ray_up_fits_rays_schema(name: str) -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    jsonschema.validate(_read(name), schema)
    validate_config(prepare_config(_read(name)))


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_head_runs_no_trials_and_all_nodes_need_the_token(name: str) -> None:
    content = _read(name)
    (head,) = [line for line in content["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in content["worker_start_ray_commands"] if "ray start" in line]
    assert "--num-cpus=0" in head
    assert "--num-gpus=0" in head
    assert "--dashboard-host=127.0.0.1" in head
    for line in (head, worker):
        assert line.startswith("RAY_AUTH_MODE=token ")
    assert content["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_only_fields_that_the_operator_knows(name: str) -> None:
    content = _read(name)
    schema = SCHEMAS[content["kind"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    cluster = content["spec"].get("rayClusterSpec", content["spec"])
    for where, wrong in (
        (content["spec"], "rayversion"),
        (cluster["headGroupSpec"], "numCpus"),
        (cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0], "volumes"),
    ):
        where[wrong] = "1"
        with pytest.raises(jsonschema.ValidationError, match=f"{wrong!r} was unexpected"):
            jsonschema.validate(content, schema)
        del where[wrong]
    cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0  # as a number the operator fails
    with pytest.raises(jsonschema.ValidationError, match="0 is not of type 'string'"):
        jsonschema.validate(content, schema)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_a_cluster_of_this_ray_with_a_token(name: str) -> None:
    content = _read(name)
    assert content["apiVersion"] == "ray.io/v1"
    spec = content["spec"]
    if content["kind"] == "RayJob":
        assert spec["entrypoint"].startswith("python -m mgc_ray.search ")
        spec = spec["rayClusterSpec"]
    else:
        assert content["kind"] == "RayCluster"
    assert spec["rayVersion"] == version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in (head, *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            needs = container["resources"]
            assert needs["requests"] == needs["limits"]
            for variable in container["env"]:  # no secret is written in the file
                assert set(variable) == {"name", "valueFrom"}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_all_use_one_image() -> None:
    images = {_read(name)["docker"]["image"] for name in LAUNCHED}
    for name in MANIFESTS:
        text = (HERE / name).read_text()
        images |= {line.split()[-1] for line in text.split("#") if line.strip().startswith("image")}
        images |= {
            word for word in text.split() if "/mgc_ray:" in word and not word.startswith("s3:")
        }
    assert images == {f"REGISTRY/mgc_ray:{version('mgc_ray')}"}


def _instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, each in one line."""
    text = re.sub(r"^#.*\n", "", (HERE / "Dockerfile").read_text("utf-8"), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_is_made_of_instructions_that_docker_knows_in_an_order_that_caches() -> None:
    words = [word for word, _ in _instructions()]
    assert set(words) <= {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENV", "CMD"}
    steps = [f"{word} {rest}" for word, rest in _instructions()]
    (lock,) = [i for i, step in enumerate(steps) if "-r requirements.lock" in step]
    everything = steps.index("COPY --chown=ray . .")
    assert steps[lock - 1] == "COPY requirements.lock ./"  # so that an edit does not install again
    assert steps[everything + 1].startswith("RUN pip install --no-cache-dir --no-deps ")
    assert steps.index("USER ray") > everything + 1
    command = json.loads(dict(_instructions())["CMD"])
    assert command[:3] == ["python", "-m", "mgc_ray.search"]


def test_the_image_installs_what_make_venv_installs() -> None:
    root = HERE.parent
    lock = (root / "requirements.lock").read_text("utf-8")
    base = re.findall(r"^FROM python:([\d.]+)-slim-\w+$", (HERE / "Dockerfile").read_text(), re.M)
    assert base == re.findall(r"^# Written by .* on Python ([\d.]+)\.", lock, re.M)
    taken = re.findall(r"musicnn==[\d.]+", (root / "Makefile").read_text("utf-8"))[0]
    runs = [rest for word, rest in _instructions() if word == "RUN"]
    assert any(f"--no-deps {taken}" in run for run in runs)
    for copied in (rest.split()[0] for word, rest in _instructions() if word == "COPY"):
        assert copied.startswith("--chown") or (root / copied).exists()


def test_the_steps_of_the_image_are_shell_without_faults() -> None:
    for run in (rest for word, rest in _instructions() if word == "RUN"):
        subprocess.run(["sh", "-n", "-c", run], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", "--shell=sh", "-"], input=run, text=True, check=True)


def test_containers_use_the_token_and_get_the_gpus_of_their_machine() -> None:
    variables = dict(_instructions())["ENV"].split()
    assert "RAY_AUTH_MODE=token" in variables
    assert "NVIDIA_VISIBLE_DEVICES=all" in variables
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in variables


def test_the_images_of_machines_have_a_driver_for_the_containers_cuda() -> None:
    """CUDA 13, which PyTorch's packages bring, needs the driver 580 (its release notes)."""
    nodes = _read("gcp.yaml")["available_node_types"].values()
    for node in nodes:
        (disk,) = node["node_config"]["disks"]
        driver = int(disk["initializeParams"]["sourceImage"].rpartition("-")[2])
        assert driver >= 580
    for node in _read("aws.yaml")["available_node_types"].values():
        # else Ray takes an Ubuntu without a driver that fits
        assert node["node_config"]["ImageId"] == "ami-OF_YOUR_REGION"
    assert "/aws/service/deeplearning/ami/" in (HERE / "aws.yaml").read_text()


def test_the_slurm_script_has_no_faults() -> None:
    subprocess.run(["bash", "-n", HERE / "slurm.sh"], check=True)
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", HERE / "slurm.sh"], check=True)


@pytest.mark.slow
def test_the_slurm_script_runs_a_search_with_a_slurm_of_one_machine(tmp_path: Path) -> None:
    """Slurm's two commands are replaced by what they do where all nodes are one machine."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text("#!/bin/sh\necho localhost\n")
    (commands / "srun").write_text(
        f"#!/bin/bash\necho $SRUN_CPUS_PER_TASK >> {tmp_path}/cpus\n"
        "while [[ $1 == --* ]]; do shift; done\n[[ $1 == hostname ]] && set -- echo"
        ' 127.0.0.1\nexec "${@/--num-cpus=0/--num-cpus=1}"\n'
    )
    for path in commands.iterdir():
        path.chmod(0o755)
    options = ["--smoke", "--family", "gru", "--results", str(tmp_path / "results"), "--name", "s"]
    done = subprocess.run(
        ["bash", HERE / "slurm.sh", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=220,
        env=os.environ
        | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "MGC_RAY_VENV": str(Path(sys.executable).parents[1]),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_CPUS_PER_TASK": "2",
            "RAY_TMPDIR": "/tmp/mgc-slurm",  # or other Rays here would find and join this one
            "SLURM_JOB_ID": str(os.getpid()),  # from which the port is made
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "results/s/search.json").read_text())["finished"]
    assert not list(tmp_path.glob(".mgc_ray-token*"))
    assert set((tmp_path / "cpus").read_text().split()) == {"2"}  # of every step
    shutil.rmtree("/tmp/mgc-slurm", ignore_errors=True)
