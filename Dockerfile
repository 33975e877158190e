# The init container's image: make image. Another base: make image ARGS="--build-arg BASE=..."; it must be Debian or a
# relative with Python 3.11 or newer. Both `args: [istio-iptables, -p, ...]` and `args: [-p, ...]` work: see ENTRYPOINT.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# What compiles (python-iptables) and installs stays in this stage.
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
# Locked packages only, the build tool among them; build isolation would fetch another one.
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /build/bin/pip wheel --no-cache-dir --no-build-isolation --use-pep517 --require-hashes \
        --wheel-dir /wheels -r requirements/runtime.txt
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY istio_iptables istio_iptables
# Without pip: nothing is ever installed into it. Bytecode that is not checked against the sources' times: some image
# builders change these, and in a read-only container Python would then compile everything at every start.
RUN /build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
 && python3 -m venv --without-pip /opt/istio-iptables \
 && /build/bin/pip --python /opt/istio-iptables/bin/python install \
        --no-cache-dir --no-index --no-deps --no-compile /wheels/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/istio-iptables/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="istio-iptables" \
      org.opencontainers.image.description="Sets up the rules that send a pod's traffic through its Envoy sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
# iptables brings the extensions and libraries that python-iptables loads, too; their folder gets a name that does not
# depend on the architecture. Python's images come without bytecode for the standard library, which would be compiled
# at every start.
RUN apt-get update && apt-get install -y --no-install-recommends iptables nftables \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/*-linux-gnu*/xtables /usr/lib/xtables \
 && python3 -m compileall -q -x '/(ensurepip|idlelib|lib2to3|tkinter|turtledemo|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/istio-iptables /opt/istio-iptables
ENV PATH=/opt/istio-iptables/bin:$PATH \
    XTABLES_LIBDIR=/usr/lib/xtables
ENTRYPOINT ["istio-iptables"]
