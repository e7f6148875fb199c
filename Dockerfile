FROM python:3.13-slim

RUN useradd --system --uid 10001 --create-home keyledger \
    && install -d -m 0700 -o keyledger -g keyledger /var/lib/keyledger /var/lib/keyledger-checkpoints

WORKDIR /usr/src/keyledger
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER keyledger
ENV KEYLEDGER_DATA_DIR=/var/lib/keyledger \
    KEYLEDGER_CHECKPOINT_FILE=/var/lib/keyledger-checkpoints/checkpoints.txt \
    KEYLEDGER_HOST=0.0.0.0
VOLUME ["/var/lib/keyledger", "/var/lib/keyledger-checkpoints"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
CMD ["keyledger", "serve"]
