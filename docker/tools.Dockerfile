ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_NO_CONFIG=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv venv --python 3.11 /opt/overpaint
COPY constraints.txt /constraints/
WORKDIR /src
COPY pyproject.toml README.md ./
COPY common common
COPY producer producer
COPY worker worker
RUN uv build --wheel --build-constraints /constraints/constraints.txt --out-dir /dist . \
    && uv pip install --python /opt/overpaint/bin/python --only-binary :all: \
        --constraints /constraints/constraints.txt "overpaint @ $(ls /dist/*.whl)"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="overpaint-tools" \
      org.opencontainers.image.description="Overpaint's command line, producer library and keeper, without torch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 overpaint \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin overpaint
COPY --from=build /opt/overpaint /opt/overpaint
COPY docker/buckets.py /opt/overpaint/libexec/
ENV PATH=/opt/overpaint/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["overpaint"]
CMD ["--help"]
