# Exported models as a service (mmlightvit serve), without torch. Nothing is written: the root may be read-only.
#
#   docker build -f docker/runtime.Dockerfile -t mmlightvit-serve .
#   docker run --rm --read-only --cap-drop ALL --memory 4g --stop-timeout 20 \
#       -p 127.0.0.1:8000:8000 -v "$PWD/models:/models:ro" mmlightvit-serve /models/pets.onnx
FROM python:3.11-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source

FROM python:3.11-slim
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir "$(echo /wheel/mmlightvit-*.whl)[serve]" \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin service
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# In a container, 0.0.0.0 is the container; who reaches it, -p and networks decide. A token: --token-file /models/token.
ENTRYPOINT ["mmlightvit", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model.onnx"]
