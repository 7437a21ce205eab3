# A server on CPUs, as a user who owns nothing:
#   docker build -t diffutron .
#   docker run -e DIFFUTRON_KEY=a-long-secret -p 8000:8000 diffutron
FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 diffutron
WORKDIR /build
COPY constraints.txt .
# Before the rest: PyPI's build for Linux brings gigabytes for GPUs.
RUN pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md README.tr.md CHANGELOG.md LICENSE ./
COPY src ./src
COPY recipes ./recipes
COPY models ./models
RUN pip install -c constraints.txt ./models/mini ".[serve]" && rm -rf /build
USER diffutron
WORKDIR /home/diffutron
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["diffutron"]
CMD ["serve", "--model", "mini", "--host", "0.0.0.0", "--offline"]
