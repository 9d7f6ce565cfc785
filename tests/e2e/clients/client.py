"""The Python client: creates, patches, applies, watches, lists in pages, deletes; and runs a command in a pod that is named.

Usage: client.py KUBECONFIG [NAMESPACE POD]. Ends with 0 and the word `fine` where everything was as it must be.
"""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream


def changes(core, name):
    """A watch in a thread: what it saw once it has seen the end of `name`."""
    seen, ready = [], threading.Event()
    version = core.list_namespaced_config_map("default").metadata.resource_version

    def look():
        ready.set()
        for event in watch.Watch().stream(
            core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=60
        ):
            if event["object"].metadata.name == name:
                seen.append((event["type"], (event["object"].data or {}).get("color")))
                if event["type"] == "DELETED":
                    return

    thread = threading.Thread(target=look)
    thread.start()
    ready.wait()
    return thread, seen


def objects():
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    name = "from-python"
    thread, seen = changes(core, name)
    created = core.create_namespaced_config_map(
        "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"color": "blue"})
    )
    assert created.metadata.uid, created
    patched = core.patch_namespaced_config_map(name, "default", {"data": {"color": "green"}})
    assert patched.data == {"color": "green"}, patched
    applied = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap").server_side_apply(
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"color": "red"}},
        name=name, namespace="default", field_manager="python", force_conflicts=True,
    )
    assert applied.data.color == "red", applied
    try:
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name)))
        raise AssertionError("it was made twice")
    except ApiException as error:
        assert (error.status, error.reason) == (409, "Conflict"), error
    page = core.list_namespaced_config_map("default", limit=1)
    assert len(page.items) == 1 and page.metadata._continue, page.metadata
    container = client.V1Container(name="web", image="example/web:1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": name}), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=0, selector=client.V1LabelSelector(match_labels={"app": name}), template=template)
    apps.create_namespaced_deployment("default", client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec))
    scaled = apps.patch_namespaced_deployment_scale(name, "default", {"spec": {"replicas": 1}})
    assert scaled.spec.replicas == 1, scaled
    apps.delete_namespaced_deployment(name, "default")
    core.delete_namespaced_config_map(name, "default")
    thread.join(60)
    expected = [("ADDED", "blue"), ("MODIFIED", "green"), ("MODIFIED", "red"), ("DELETED", "red")]
    assert seen == expected, seen


def command(namespace, pod):
    said = stream(
        client.CoreV1Api().connect_get_namespaced_pod_exec, pod, namespace, command=["sh", "-c", "echo hello"],
        stdout=True, stderr=True, stdin=False, tty=False,
    )
    assert said == "hello\n", said


config.load_kube_config(sys.argv[1])
objects()
if len(sys.argv) > 2:
    command(sys.argv[2], sys.argv[3])
print("fine")
