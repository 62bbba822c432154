# Training, testing, reports and export, on NVIDIA GPUs. mmcv's operators are compiled: half an hour on few cores.
#
#   docker build -f docker/train.Dockerfile -t mmlightvit-train .
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" \
#       -v "$PWD:/work" mmlightvit-train train pets --work-dir work_dirs/pets
#
# Without GPUs: --build-arg BASE=python:3.11 --build-arg FORCE_CUDA=0
ARG BASE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-devel
FROM ${BASE}
# Of the GPUs that it is to run on: Ampere, Ada, Hopper, and later ones by PTX.
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0+PTX"
ARG FORCE_CUDA=1
ARG MAX_JOBS=4
# For OpenCV.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
# Before the sources, so that a change of these compiles nothing again.
COPY requirements /source/requirements
RUN pip install -r /source/requirements/build.txt \
    && TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" FORCE_CUDA="${FORCE_CUDA}" MAX_JOBS="${MAX_JOBS}" \
    pip install --no-build-isolation -r /source/requirements/toolboxes.txt
COPY . /source
RUN pip install --no-build-isolation "/source[data,report,export]"
# Caches of torch and matplotlib go where any user may write.
ENV HOME=/tmp
USER 10001
WORKDIR /work
ENTRYPOINT ["mmlightvit"]
CMD ["--help"]
