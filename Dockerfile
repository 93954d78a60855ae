# The one executable in a slim image. Its role is its first argument: up, ingress, scheduler, worker, sandbox.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# cmake and clang: aws-lc-rs builds its own C.
RUN apt-get update && apt-get install -y --no-install-recommends cmake clang && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tidemill --bin tidemill && install -D target/release/tidemill /out/tidemill

FROM debian:bookworm-slim
# The system's roots, for backends behind TLS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home tidemill
COPY --from=build /out/tidemill /usr/local/bin/tidemill
USER tidemill
EXPOSE 8080
ENTRYPOINT [ "tidemill" ]
CMD [ "up", "--listen", "0.0.0.0:8080" ]
HEALTHCHECK --interval=5s --timeout=3s --retries=12 CMD [ "tidemill", "healthcheck", "--url", "http://127.0.0.1:8080/readyz" ]
