"""A schema of KubeRay's manifests that is as strict as its operator's: unknown fields are refused.

The names and types are those of the operator's API `ray.io/v1` (RayClusterSpec, RayJobSpec) and of
Kubernetes' core/v1 pods. Of pods it has only the fields that a cluster of this program may need;
the operator knows all fields, so what is accepted here is accepted there.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
TRUTH: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}


def _some(**fields: Schema) -> Schema:
    """An object that may have these fields and no others."""
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _with(*needed: str, **fields: Schema) -> Schema:
    """The same, with some required fields."""
    return _some(**fields) | {"required": list(needed)}


def _each(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _named(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


_SECRET = _with("name", "key", name=NAME, key=TEXT, optional=TRUTH)
_VARIABLE = {
    "oneOf": [
        _with("name", "value", name=TEXT, value={"type": "string"}),
        _with("name", "valueFrom", name=TEXT, valueFrom=_some(secretKeyRef=_SECRET)),
    ]
}
_CONTAINER = _with(
    *("name", "image"),
    name=NAME,
    image=TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    command=_each(TEXT),
    args=_each(TEXT),
    env=_each(_VARIABLE),
    resources=_some(requests=_named(QUANTITY), limits=_named(QUANTITY)),
    volumeMounts=_each(
        _with("name", "mountPath", name=NAME, mountPath=TEXT, readOnly=TRUTH, subPath=TEXT)
    ),
)
_VOLUME = _with(
    "name",
    name=NAME,
    emptyDir=_some(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
    persistentVolumeClaim=_with("claimName", claimName=NAME, readOnly=TRUTH),
    secret=_with("secretName", secretName=NAME, optional=TRUTH),
) | {"minProperties": 2, "maxProperties": 2}
_POD = _with(
    "spec",
    metadata=_some(labels=_named(TEXT), annotations=_named(TEXT)),
    spec=_with(
        "containers",
        containers=_each(_CONTAINER),
        initContainers=_each(_CONTAINER),
        volumes=_each(_VOLUME),
        nodeSelector=_named(TEXT),
        serviceAccountName=NAME,
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    ),
)
_START = _named({"type": "string"})  # of `ray start`; numbers too are strings
_CLUSTER = _with(
    *("headGroupSpec", "rayVersion"),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_with("mode", mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=TRUTH,
    autoscalerOptions=_some(
        idleTimeoutSeconds=COUNT, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}
    ),
    suspend=TRUTH,
    headGroupSpec=_with(
        *("rayStartParams", "template"),
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        enableIngress=TRUTH,
        rayStartParams=_START,
        template=_POD,
    ),
    workerGroupSpecs=_each(
        _with(
            *("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=_START,
            template=_POD,
        )
    ),
)
_JOB = _with(
    *("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    shutdownAfterJobFinishes=TRUTH,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    suspend=TRUTH,
    runtimeEnvYAML=TEXT,
    entrypointNumCpus={"type": "number", "minimum": 0},
    rayClusterSpec=_CLUSTER,
)
_METADATA = _with("name", name=NAME, namespace=NAME, labels=_named(TEXT), annotations=_named(TEXT))

SCHEMAS: dict[str, Schema] = {
    kind: _with(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )
    for kind, spec in (("RayCluster", _CLUSTER), ("RayJob", _JOB))
}
