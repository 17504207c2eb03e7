# `llasa serve` in a container, for a CPU or for an NVIDIA GPU:
#
#   docker build --target cpu --tag llasa .
#   docker run --publish 127.0.0.1:8000:8000 --volume llasa:/data llasa
#
#   docker build --target gpu --tag llasa:gpu .
#   docker run --gpus all --publish 127.0.0.1:8000:8000 --volume llasa:/data llasa:gpu serve --host 0.0.0.0 --model HKUSTAudio/Llasa-1B

FROM python:3.11-slim AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 llasa \
    && install --directory --owner llasa /data
COPY pyproject.toml constraints.txt README.md LICENSE /llasa/
COPY src /llasa/src
# Voices that clients upload, and models from the hub.
ENV LLASA_HOME=/data HF_HOME=/data/hub
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=2m \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["llasa"]
CMD ["serve", "--host", "0.0.0.0"]

# PyPI's torch brings CUDA.
FROM base AS gpu
RUN pip install --no-cache-dir --constraint /llasa/constraints.txt "/llasa[serve]"
USER 1000

FROM base AS cpu
RUN pip install --no-cache-dir --constraint /llasa/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --no-cache-dir --constraint /llasa/constraints.txt "/llasa[serve]"
USER 1000
