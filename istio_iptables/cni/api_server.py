"""api_server: the Kubernetes API, asked by kubernetes' own client library, for what no runtime hands over.

The library is an optional extra, and its import takes longer than all the rest of a call.
"""

from __future__ import annotations

from .deadline import Deadline
from .pod import KnownPod, of_api
from .protocol import BAD_CONFIGURATION, TRY_AGAIN, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .configuration import Node
    from .pod import Identity

#: The extra of setup.cfg.
HOW_TO_INSTALL = "pip install 'istio-iptables[cni-api]'"
#: The annotation of a pod from a file of the node, whose UID for kubelet is the one in it.
_OF_FILE = "kubernetes.io/config.hash"


def client(kubeconfig: str) -> Any:
    """Return a client of the API: one connection, no retries. An empty path stands for a pod's own access.

    Raises CniError if the library is missing or if the file cannot be used.
    """
    try:
        from kubernetes import client as library
        from kubernetes import config

        load: Any = config
    except ImportError as error:
        raise CniError(
            BAD_CONFIGURATION,
            f"kubeconfig: the Kubernetes API cannot be asked: {error}",
            f"install its client library ({HOW_TO_INSTALL}), or use a runtime that hands over annotations",
        ) from error
    settings = library.Configuration()
    settings.connection_pool_maxsize = 1
    settings.retries = False
    try:
        if kubeconfig:
            load.load_kube_config(kubeconfig, client_configuration=settings, persist_config=False)
        else:
            load.load_incluster_config(client_configuration=settings)
    except Exception as error:  # whatever is wrong with the file, of a YAML library or of base64
        what = " ".join(str(error).split())
        raise CniError(BAD_CONFIGURATION, f"kubeconfig: {kubeconfig} cannot be used", what) from error
    return library.ApiClient(settings)


def ask(who: Identity, node: Node) -> KnownPod:
    """Return the pod as the API has it. Raises CniError if it does not answer, or with another pod."""
    with client(node.kubeconfig) as connection:
        from kubernetes import client as library

        text = _read(who, library.CoreV1Api(connection), node.api_timeout)
    known = of_api(text, who)
    uid = _uid(known)
    if who.uid and uid != who.uid and known.pod.annotations.get(_OF_FILE) != who.uid:
        other = f"its UID is {uid}, and that of this one is {who.uid}"
        raise CniError(TRY_AGAIN, f"the API has another {who}", other)
    return known


def _read(who: Identity, api: Any, seconds: float) -> str:
    """Return the API's answer as it is. The library's own limit is for each step of it, ours is for all."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    late = CniError(TRY_AGAIN, f"the Kubernetes API did not answer within {seconds:g} seconds")
    try:
        with Deadline(seconds, late):
            answer = api.read_namespaced_pod(
                who.name, who.namespace, _preload_content=False, _request_timeout=seconds
            )
            content: bytes = answer.data
        if answer.status != 200:
            raise _refused(who, answer.status, content)
        return content.decode()
    except ApiException as error:
        raise _refused(who, error.status, error.body or str(error.reason)) from error
    except (HTTPError, OSError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise CniError(TRY_AGAIN, f"the Kubernetes API could not be asked for {who}", what) from error


def _refused(who: Identity, status: object, body: str | bytes) -> CniError:
    said = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    rights = ": the account of the kubeconfig needs the right to `get` pods" if status in (401, 403) else ""
    details = f"status {status}{rights}: {' '.join(said.split())[:_MOST_OF_AN_ANSWER]}"
    return CniError(TRY_AGAIN, f"the Kubernetes API does not show {who}", details)


#: How much of an answer that is no pod an error shows, in characters.
_MOST_OF_AN_ANSWER = 300


def _uid(known: KnownPod) -> str:
    document: Any = known.pod.document
    return str(document["metadata"].get("uid", ""))
