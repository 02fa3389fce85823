// Asks an evaluator of IAM policies that knows resources and conditions. Input on stdin, one JSON object:
// {roles: [[policy, …], …], cases: [{role: index, action, resource, context}, …]}; output: one JSON answer a case,
// {allowed, ignored: [context keys that the action does not have], error?}.
import { runSimulation } from '@cloud-copilot/iam-simulate'
import { readFileSync } from 'node:fs'

const { account, roles, cases } = JSON.parse(readFileSync(0, 'utf8'))
const identities = roles.map((policies) => policies.map((policy, number) => ({ name: `policy${number}`, policy })))

async function judge({ role, action, resource, context }) {
  const answer = await runSimulation(
    {
      request: {
        principal: `arn:aws:iam::${account}:role/simulated`,
        action,
        resource: { resource, accountId: account },
        contextVariables: context
      },
      identityPolicies: identities[role],
      serviceControlPolicies: [],
      resourceControlPolicies: []
    },
    {}
  )
  if (answer.resultType === 'error') {
    return { allowed: false, ignored: [], error: JSON.stringify(answer.errors) }
  }
  const results = answer.resultType === 'single' ? [answer.result] : answer.results
  return {
    allowed: answer.overallResult === 'Allowed',
    ignored: results.flatMap((result) => result.ignoredContextKeys ?? [])
  }
}

const answers = []
for (const one of cases) {
  answers.push(await judge(one))
}
process.stdout.write(JSON.stringify(answers))
