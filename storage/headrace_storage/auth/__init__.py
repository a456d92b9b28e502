"""Who may do what on the broker and with files in S3, and the files that say so to nats-server and to each process.

roles         role and tenant -> subjects: the one table of permissions
plan          tenants, limits and public keys: all that the server's configuration is made from
server_conf   a plan as nats.conf
keys          nkeys: a secret seed and its public key
certificates  a CA of our own, and the server's certificate
folder        the files of all of it, and how they are written

The same for files in S3:

s3_policies   role and tenant -> what may be done with files: the one table of it
s3_users      keys of roles, in the same folder
minio_users   how a running MinIO is told of them
"""
