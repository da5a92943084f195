"""The controller of the trusted cluster: keeps brokers as BrokerResources, policies, values and profiles say.

One function per kind asks the cluster and the broker, a pure one decides (`deciding`), and what was decided is then
done. Whatever happens, the outcome is a condition in the object's status; nothing is retried without a growing pause.
"""
