#!/bin/sh
# A stand-in for `minio server FOLDER`, not MinIO: the gateway of JuiceFS, which is MinIO's own S3 code over local files.
set -eu
[ "${1:-}" != minio ] || shift
[ "${1:-}" = server ] || { echo "this stand-in for minio only knows: server FOLDER [--address ADDRESS]" >&2; exit 2; }
shift
folder=
address=0.0.0.0:9000
while [ $# -gt 0 ]; do
	case "$1" in
	--address) address=$2; shift ;;
	--address=*) address=${1#*=} ;;
	--console-address) shift ;;
	-*) ;;
	*) folder=$1 ;;
	esac
	shift
done
case "$address" in
:*) address=0.0.0.0$address ;;
esac
[ -z "${MINIO_ROOT_USER_FILE:-}" ] || MINIO_ROOT_USER=$(cat "$MINIO_ROOT_USER_FILE")
[ -z "${MINIO_ROOT_PASSWORD_FILE:-}" ] || MINIO_ROOT_PASSWORD=$(cat "$MINIO_ROOT_PASSWORD_FILE")
export MINIO_ROOT_USER MINIO_ROOT_PASSWORD
export HOME=/tmp
meta=sqlite3://$folder/meta.db
[ -f "$folder/meta.db" ] ||
	juicefs --no-agent format "$meta" jfs --storage file --bucket "$folder/blocks/" --trash-days 0
exec juicefs --no-agent gateway "$meta" "$address" --multi-buckets --keep-etag --object-meta --object-tag \
	--no-usage-report --no-banner --metrics 127.0.0.1:9567 \
	--cache-dir "$folder/cache" --cache-size 256 --buffer-size 64M
