# The command `tuner` with all its extras:
#     docker build -t tuner .
#     docker run --rm -v "$PWD:/work" tuner run sales.yaml
# What it writes belongs to user 1000; add --user "$(id -u):$(id -g)" if you are another one.
# PyTorch is the CUDA build, unless TORCH_INDEX is the package index of the CPU build, see
# pytorch.org:  docker build --build-arg TORCH_INDEX=URL -t tuner .

FROM python:3.11-slim AS build
RUN python -m venv /opt/tuner
ENV PATH=/opt/tuner/bin:$PATH PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt ./
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --constraint constraints.txt --no-deps --index-url "$TORCH_INDEX" torch; \
    fi
COPY . .
RUN pip install --constraint constraints.txt ".[classical,emd,postgresql,ray,xlsx]"

FROM python:3.11-slim
RUN useradd --uid 1000 tuner && install --directory --owner tuner /work
COPY --from=build /opt/tuner /opt/tuner
# A user without an account has a name and a home, which libraries look for.
ENV PATH=/opt/tuner/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp USER=tuner
USER tuner
WORKDIR /work
ENTRYPOINT ["tuner"]
CMD ["--help"]
