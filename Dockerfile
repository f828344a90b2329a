# A server for one trained model: CPU only, not root, nothing written but to memory, no request to other machines.
#   docker build -t biomedcoop . && docker compose up
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# PyTorch from its index of CPU builds; the default index would bring gigabytes of CUDA libraries
RUN python -m venv /opt/biomedcoop \
    && /opt/biomedcoop/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && /opt/biomedcoop/bin/pip install '.[app,dicom]'

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 biomedcoop
COPY --from=build /opt/biomedcoop /opt/biomedcoop
ENV PATH=/opt/biomedcoop/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    BIOMEDCOOP_CACHE=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /home/biomedcoop
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["biomedcoop"]
CMD ["serve", "/models/run", "--host", "0.0.0.0", "--token-file", "/run/secrets/token"]
