# The daemon alone: engines stay as they are, in their own images.
FROM python:3.11-slim-bookworm

WORKDIR /opt/scalesim
COPY requirements/daemon.lock requirements/daemon.lock
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/daemon.lock
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY estimators estimators
COPY adapters adapters
COPY daemon daemon
RUN pip install --no-cache-dir --no-deps . \
 && useradd --system --create-home --uid 10001 scalesim \
 && install -d -o scalesim -g scalesim /var/lib/scalesim/loras

USER scalesim
ENV SCALESIM_LORAS__LINKS_DIR=/var/lib/scalesim/loras
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8700/health', timeout=2)"]
ENTRYPOINT ["scalesimd"]
CMD ["serve"]
