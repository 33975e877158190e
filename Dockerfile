# The init container's image; `make image` builds it, `make image-test` tries it in a pod. The target `cni` is the image
# of the CNI plugin's installer.
#
# Both `args: [istio-iptables, -p, ...]` and `args: [-p, ...]` work: see ENTRYPOINT. Another base: --build-arg BASE=...; it
# must be Debian or a relative with Python 3.11 or newer, venv included. For a build that never changes, name the base by
# its digest (python@sha256:...).
#
# What apt and pip need to know of this machine to reach their package sources (a proxy, an own index, an own authority)
# comes in as secrets, which are there while a line runs and leave nothing in the image. All are optional:
#   apt.conf   more settings for apt
#   pip.conf   pip's
#   ca.pem     authorities, for the two files above to name as /run/secrets/ca.pem
ARG BASE=docker.io/library/python:3.13.7-slim-bookworm

# What installs, and what compiles the launcher of the CNI plugin, stays in this stage.
FROM ${BASE} AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf,mode=0444 \
    --mount=type=secret,id=ca.pem,mode=0444 \
    apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
# Locked packages only, the build tool among them; build isolation would fetch another one. The packages that draw boxes
# around help texts and errors are left out: they are the larger half of everything, and the tool never uses them.
# So that two builds give the same bytes, there is no debug information (-g0), which names a folder that is called
# otherwise each time, and one time for all in archives.
ENV CFLAGS=-g0 SOURCE_DATE_EPOCH=315532800
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf,mode=0444 \
    --mount=type=secret,id=ca.pem,mode=0444 \
    python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /build/bin/pip wheel --no-cache-dir --no-build-isolation --use-pep517 --require-hashes \
        --wheel-dir /wheels -r requirements/runtime.txt \
 && rm -f /wheels/rich-* /wheels/pygments-* /wheels/markdown_it_py-* /wheels/mdurl-*
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY tools/launcher tools/sbom.py tools/version.py tools/
COPY docs/istio-iptables.8 docs/
COPY istio_iptables istio_iptables
# Without pip: nothing is ever installed into it. Without the tests of dependencies and the makers of network cards,
# without the manual page, since there is no man, and of programs Python and our own alone: dependencies bring some, and
# venv what people type into shells.
# The programs start without what the environment names (-I) and without the modules of site (-S).
# Bytecode that is not checked against the sources' times: some image builders change these, and in a read-only container
# Python would then compile everything at every start. By one process, in the order of names: the same bytes each time.
# sbom.cdx.json lists what is installed, all of which is in the lock file, or else the build fails.
ARG VERSION=
RUN export ISTIO_IPTABLES_VERSION="$VERSION" \
 && /build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
 && python3 -m venv --without-pip /opt/istio-iptables \
 && /build/bin/pip --python /opt/istio-iptables/bin/python install \
        --no-cache-dir --no-index --no-deps --no-compile /wheels/*.whl \
 && cd /opt/istio-iptables/lib/python3*/site-packages \
 && rm -rf netaddr/tests netaddr/eui/*.txt netaddr/eui/*.idx \
 && cd /opt/istio-iptables \
 && sed -i '1s/$/ -IS/' bin/istio-* \
 && rm -rf include share .gitignore \
 && find bin -mindepth 1 ! -name 'python*' ! -name 'istio-*' -delete \
 && python3 /src/tools/sbom.py --installed lib/python3*/site-packages >sbom.cdx.json \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/istio-iptables/lib

# What the image of the CNI plugin's installer has besides: what starts the plugin on a node that has nothing, and the
# client of the Kubernetes API. Of the client, the half for asynchronous programs is left out, and what only that needs.
FROM build AS build-cni
COPY requirements/cni.txt requirements/
ARG VERSION=
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf,mode=0444 \
    --mount=type=secret,id=ca.pem,mode=0444 \
    /build/bin/pip wheel --no-cache-dir --no-build-isolation --use-pep517 --require-hashes \
        --wheel-dir /cni-wheels -r requirements/cni.txt \
 && rm -f /cni-wheels/rich-* /cni-wheels/pygments-* /cni-wheels/markdown_it_py-* /cni-wheels/mdurl-* \
        /cni-wheels/aio* \
 && /build/bin/pip --python /opt/istio-iptables/bin/python install \
        --no-cache-dir --no-index --no-deps --no-compile /cni-wheels/*.whl \
 && rm -rf /opt/istio-iptables/lib/python3*/site-packages/kubernetes/aio \
 && cd /opt/istio-iptables \
 && find bin -mindepth 1 ! -name 'python*' ! -name 'istio-*' -delete \
 && export ISTIO_IPTABLES_VERSION="$VERSION" \
 && python3 /src/tools/sbom.py --locked /src/requirements/cni.txt \
        --installed lib/python3*/site-packages >sbom.cdx.json \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/istio-iptables/lib
COPY tools/launch.c tools/
RUN mkdir /opt/istio-iptables/libexec \
 && cc -static -Os -s -o /opt/istio-iptables/libexec/istio-iptables-launch tools/launch.c

# What both images stand on.
FROM ${BASE} AS system
ARG DEBIAN_FRONTEND=noninteractive
# iptables brings libiptc and its extensions, too; their folder gets a name that does not
# depend on the architecture. Python's images come without bytecode for the standard library, which would be compiled
# at every start, and with pip, which goes. The lock file of iptables is made here, because a container with a read-only
# root file system cannot make it, though it may lock one that is there.
RUN --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf,mode=0444 \
    --mount=type=secret,id=ca.pem,mode=0444 \
    apt-get -qq update && apt-get -qq install --no-install-recommends iptables nftables \
 && apt-get -qq purge $(dpkg-query -W -f '${Package}\n' 'python3*-venv' 'python3-pip*' 'python3-setuptools*' \
        'python3-wheel*' 2>/dev/null) \
 && stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && rm -rf "$stdlib"/ensurepip "$stdlib"/site-packages/pip* "$stdlib"/site-packages/setuptools* \
        "$stdlib"/site-packages/wheel* /usr/local/bin/pip* \
        /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/cache/ldconfig/* \
        /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
 && python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(idlelib|lib2to3|test|tkinter|turtledemo|site-packages|dist-packages)/' "$stdlib" \
 && ln -s /usr/lib/*-linux-gnu*/xtables /usr/lib/xtables \
 && install -m 0600 /dev/null /run/xtables.lock
ENV PATH=/opt/istio-iptables/bin:$PATH \
    TYPER_USE_RICH=0 \
    XTABLES_LIBDIR=/usr/lib/xtables
ENTRYPOINT ["istio-iptables"]
# After all that runs, so that a new revision makes no new layers.
ARG BASE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"

# The installer of the CNI plugin: `make image ARGS="--target cni" IMAGE=istio-iptables-cni`. It does not stand on the
# other image: podman removes what a build stands on, and the other's name with it if there is one.
FROM system AS cni
COPY --from=build-cni /opt/istio-iptables /opt/istio-iptables
LABEL org.opencontainers.image.title="istio-iptables-cni" \
      org.opencontainers.image.description="Puts the CNI plugin istio-iptables-cni on a node, and keeps it there"

# The init container, which is what is built by default.
FROM system AS istio-iptables
COPY --from=build /opt/istio-iptables /opt/istio-iptables
LABEL org.opencontainers.image.title="istio-iptables" \
      org.opencontainers.image.description="Sets up the rules that send a pod's traffic through its Envoy sidecar"
