# The director, or a client: `docker run IMAGE director …`, `docker run --entrypoint director-client IMAGE …`.
#
# Two stages, so that what builds does not run: the second has no pip cache, no source tree and no build tools.

ARG PYTHON_VERSION=3.13
ARG DEBIAN_RELEASE=bookworm

FROM python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE} AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# Everything in the lock, with its hashes, so that the layer is made anew only when the lock changes.
COPY requirements.lock ./
RUN python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --requirement requirements.lock

COPY . .
RUN /build/bin/python -m build --wheel --no-isolation --outdir /wheels

# What runs: the part of the lock that the base and [director] need.
RUN python tools/runtime_requirements.py requirements.lock > /runtime.lock \
    && python -m venv /venv \
    && /venv/bin/python -m pip install --require-hashes --requirement /runtime.lock \
    && /venv/bin/python -m pip install --no-deps /wheels/*.whl \
    && /venv/bin/python -m pip check


FROM python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE}
LABEL org.opencontainers.image.title="Borgmatic Director" org.opencontainers.image.licenses="Apache-2.0"

# Borg for clients, standalone mode and connection tests; git for the source; ssh for sources and repositories.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends borgbackup git openssh-client tini \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1

# The director needs no privilege: it reads Git and writes its own state directory.
RUN useradd --system --uid 10001 --home-dir /var/lib/borgmatic-director --create-home --shell /usr/sbin/nologin director
USER director
WORKDIR /var/lib/borgmatic-director
VOLUME /var/lib/borgmatic-director

# tini passes signals on and reaps the git processes whose parents have gone.
ENTRYPOINT ["/usr/bin/tini", "--", "director"]
CMD ["run"]
