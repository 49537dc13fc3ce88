# `airflow`, which also fits a production Airflow, the same with Celery, and `local`, the stand-ins for S3 and Redshift.
FROM apache/airflow:3.3.2 AS airflow
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /requirements.txt
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
COPY include /opt/airflow/include

FROM airflow AS celery
COPY requirements-celery.txt /requirements-celery.txt
RUN pip install --no-cache-dir --require-hashes -r /requirements-celery.txt

FROM python:3.12-slim AS local
COPY local/requirements.txt /requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /requirements.txt \
    && useradd --uid 10001 --create-home sparkify \
    && install -d -o sparkify /var/lib/sparkify
WORKDIR /opt/sparkify
COPY local local
USER sparkify
ENV SPARKIFY_LOCAL_DIR=/var/lib/sparkify SPARKIFY_HOST=0.0.0.0 PYTHONUNBUFFERED=1
VOLUME /var/lib/sparkify
ENTRYPOINT ["python", "-m", "local"]
